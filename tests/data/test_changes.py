"""Tests of the inputs that a manifest leaves out because an earlier run knows them, against a naive rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.manifest_table import Manifest, ManifestTable
from pipeline.data.storage import ObjectInfo

URIS = st.sampled_from([f"s3://b/{name}.png" for name in "abcde"])
# Label, size, version; an image that is named but missing has neither size nor version.
STATES = st.tuples(
    st.sampled_from([None, "s3://b/l.png"]),
    st.sampled_from([(None, None), (1, None), (1, "v"), (1, "w"), (2, "v")]),
).map(lambda pair: (pair[0], *pair[1]))
LISTINGS = st.dictionaries(URIS, STATES)


def manifest(now, *known, limit=None) -> Manifest:  # type: ignore[no-untyped-def]
    table = ManifestTable()
    for earlier in known:
        table.add_known((uri, *state) for uri, state in earlier.items())
    infos = {uri: None if size is None else ObjectInfo(uri, size, version) for uri, (_, size, version) in now.items()}
    table.add_images((uri, state[0], infos[uri], uri) for uri, state in now.items())
    return table.freeze("test", limit)


def same(before: tuple[object, ...], after: tuple[object, ...]) -> bool:
    _, size, version = before
    return before == after and (version is not None or size is None)


@given(LISTINGS, LISTINGS, LISTINGS)
def test_new_changed_unchanged_and_gone(now, first, second) -> None:  # type: ignore[no-untyped-def]
    found = manifest(now, first, second)
    known = first | second
    expected = {
        uri: "changed" if uri in known else "new" for uri in now if not same(known.get(uri, ()) or ("",) * 3, now[uri])
    }
    assert [row["image_uri"] for row in found.rows()] == sorted(expected)
    expected |= dict.fromkeys(known.keys() - now.keys(), "gone")
    changes = found.changes
    assert changes is not None
    rows = list(changes.table.rows())
    assert [(row["image_uri"], row["change"]) for row in rows] == sorted(expected.items())
    for row in rows:
        assert row["version"] == now.get(row["image_uri"], (None,) * 3)[2]
        assert row["earlier_version"] == known.get(row["image_uri"], (None,) * 3)[2]
    counts = changes.counts()
    assert counts.pop("unchanged") == len(now.keys() & known.keys()) - counts["changed"]
    assert sum(counts.values()) == len(rows)


def test_a_limit_counts_what_is_not_known() -> None:
    now = {f"s3://b/{name}": (None, 1, "v") for name in "abcd"}
    found = manifest(now, {"s3://b/a": (None, 1, "v"), "s3://b/z": (None, 1, "v")}, limit=2)
    assert [row["image_uri"] for row in found.rows()] == ["s3://b/b", "s3://b/c"]
    assert found.changes is not None
    assert found.changes.counts() == {"new": 2, "changed": 0, "unchanged": 1, "gone": 1}


def test_what_is_forgotten_is_new_again() -> None:
    table = ManifestTable()
    table.add_known([("s3://b/a", None, 1, "v")])
    table.forget(["s3://b/a"])
    table.add_images([("s3://b/a", None, ObjectInfo("s3://b/a", 1, "v"), None)])
    changes = table.freeze("test").changes
    assert changes is not None and changes.counts() == {"new": 1, "changed": 0, "unchanged": 0, "gone": 0}


def test_nothing_is_compared_unless_asked() -> None:
    assert manifest({"s3://b/a": (None, 1, "v")}).changes is None
