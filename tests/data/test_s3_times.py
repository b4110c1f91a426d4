"""Tests of the fast parser of S3's times, against botocore's."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest
from botocore.utils import parse_timestamp

from pipeline.data.filesystems import _time, open_s3

FORMS = [
    "2026-01-31T10:20:30.000Z",
    "2026-01-31T10:20:30.123Z",
    "2026-01-31T10:20:30.123456789Z",
    "2026-01-31T10:20:30Z",
    "20260131T102030Z",
    "2026-01-31T10:20:30+02:00",
    "Sat, 31 Jan 2026 10:20:30 GMT",
    "1769854830",
    1769854830,
    1769854830.5,
]


@pytest.mark.parametrize("form", FORMS)
def test_a_time_is_what_botocore_makes_of_it(form: object) -> None:
    assert _time(form) == parse_timestamp(form)
    assert _time(form).utcoffset() == parse_timestamp(form).utcoffset()


@pytest.mark.parametrize("form", ["yesterdayZ", "Z", "", datetime(2026, 1, 31, tzinfo=UTC)])
def test_what_is_no_time_is_refused_as_by_botocore(form: object) -> None:
    with pytest.raises(ValueError):
        parse_timestamp(form)
    with pytest.raises(ValueError):
        _time(form)


def test_listings_are_parsed_with_it_also_where_a_filesystem_was_sent(bucket: str) -> None:
    """A client in use cannot be pickled, so the other process makes its own."""
    filesystem = open_s3(5, 5)
    assert filesystem.ls(bucket.removeprefix("s3://").partition("/")[0], refresh=True) is not None
    for each in (filesystem, pickle.loads(pickle.dumps(filesystem))):
        parser = each.session.get_component("response_parser_factory").create_parser("rest-xml")
        assert parser._timestamp_parser is _time
