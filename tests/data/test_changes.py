"""Tests of the inputs that a manifest leaves out because an earlier run knows them, against a naive rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.manifest_table import Manifest, ManifestTable, describe_changes
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
        table.add_known((uri, *state, None) for uri, state in earlier.items())
    infos = {uri: None if size is None else ObjectInfo(uri, size, version) for uri, (_, size, version) in now.items()}
    table.add_images((uri, state[0], infos[uri], uri, None) for uri, state in now.items())
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
    table.add_known([("s3://b/a", None, 1, "v", None)])
    table.forget(["s3://b/a"])
    table.add_images([("s3://b/a", None, ObjectInfo("s3://b/a", 1, "v"), None, None)])
    changes = table.freeze("test").changes
    assert changes is not None and changes.counts() == {"new": 1, "changed": 0, "unchanged": 0, "gone": 0}


@given(
    st.sampled_from(["v", "w"]),
    st.sampled_from(["s3://b/l.png", None]),
    st.sampled_from([None, "l", "m"]),
    st.booleans(),
    st.booleans(),
)
def test_labels_and_failures(
    version: str, label: str | None, label_version: str | None, failed: bool, relabeled: bool
) -> None:
    """An image known as version v, with label l.png of version l, against the rules in their order of precedence."""
    table = ManifestTable()
    table.add_known([("s3://b/a", "s3://b/l.png", 1, "v", "l"), ("s3://b/b", None, 1, "v", None)])
    table.mark_failed(["s3://b/a", "s3://b/none"] if failed else [])
    for name, state in (("a", (label, version, label_version)), ("b", (None, "v", None))):
        table.add_images([(f"s3://b/{name}", state[0], ObjectInfo(name, 1, state[1]), None, state[2])])
    changes = table.freeze("test", relabeled=relabeled).changes
    assert changes is not None
    expected = {"image_uri": "s3://b/a", "version": version, "earlier_version": "v"}
    if version != "v" or label is None:
        expected["change"] = "changed"
    elif relabeled and label_version != "l":
        expected |= {"change": "relabeled", "version": label_version, "earlier_version": "l"}
    elif failed:
        expected["change"] = "retried"
    assert list(changes.table.rows()) == ([expected] if "change" in expected else [])
    assert changes.unchanged == (1 if "change" in expected else 2)


def test_the_digest_leaves_out_label_versions_but_not_changes() -> None:
    def frozen(version: str | None, *, relabeled: bool) -> Manifest:
        table = ManifestTable()
        table.add_known([("s3://b/a", "s3://b/a", 1, "v", None)])
        table.add_images((f"s3://b/{name}", None, ObjectInfo(name, 1, "v"), name, None) for name in "ab")
        table.add_labels([("a", "s3://b/a", version), ("b", "s3://b/b", version)])
        return table.freeze("test", relabeled=relabeled)

    assert len({frozen(version, relabeled=False).digest() for version in (None, "l", "m")}) == 1
    digests = {}
    for version in (None, "l", "m"):
        changes = frozen(version, relabeled=True).changes
        assert changes is not None
        digests[changes.table.digest()] = changes.counts()
    none, first, second = digests.values()
    assert none == {"new": 1, "changed": 0, "unchanged": 1, "gone": 0}
    assert first == second == {"new": 1, "changed": 0, "unchanged": 0, "gone": 0, "relabeled": 1}
    assert describe_changes(first) == "1 new, 0 changed, 1 relabeled, 0 unchanged, 0 gone"


def test_nothing_is_compared_unless_asked() -> None:
    assert manifest({"s3://b/a": (None, 1, "v")}).changes is None
