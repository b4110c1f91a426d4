"""Tests of a growing bucket: runs that take only inputs that are new or changed since another run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from model.files.checkpoint import to_bytes
from pipeline.data.storage import join
from pipeline.errors import ConfigError, IncompleteRun, RunConflict
from pipeline.results.tables import Run
from pipeline.results.verify import verify
from pipeline.segmentation.runs import shards
from pipeline.segmentation.runs.claim import claim
from pipeline.segmentation.runs.plan import make_plan
from tests.segmentation.support import (
    Inputs,
    config_of,
    label,
    narrow_network,
    picture,
    png,
    predictions_of,
    run_here,
    write_inputs,
)
from tests.shared import STORAGE


@pytest.fixture
def inputs(bucket: str) -> Inputs:
    """Write six images and segment them; then change one, remove one and add one."""
    inputs = write_inputs(bucket, 6)
    run_here(config_of(inputs))
    change_images(inputs)
    return inputs


def image(inputs: Inputs, index: int) -> str:
    return join(inputs.root, "images", f"{index:05d}.png")


def change_images(inputs: Inputs) -> None:
    STORAGE.write(image(inputs, 1), png(picture(91)))
    STORAGE.delete(image(inputs, 2))
    STORAGE.write(image(inputs, 7), png(picture(7)))
    STORAGE.write(join(inputs.root, "labels", "00007.png"), png(label(7)))


def out(inputs: Inputs, name: str = "out") -> str:
    return join(inputs.root, name)


def since(inputs: Inputs, output: str, earlier: str = "out", **changes: object) -> Run:
    run_here(config_of(inputs, output=out(inputs, output), since=out(inputs, earlier), **changes))
    return Run(out(inputs, output))


def test_only_new_and_changed_images_are_segmented(inputs: Inputs) -> None:
    run = since(inputs, "second")
    assert run.manifest()["image_uri"].tolist() == [image(inputs, 1), image(inputs, 7)]
    assert run.predictions(["image_uri"])["image_uri"].tolist() == [image(inputs, 1), image(inputs, 7)]
    assert run.success["images"] == 2 and verify(run.output).ok


def test_the_run_says_since_what_and_why(inputs: Inputs) -> None:
    run = since(inputs, "second")
    counts = {"new": 1, "changed": 1, "unchanged": 4, "gone": 1}
    expected = {"output": out(inputs), "run_id": Run(out(inputs)).success["run_id"], **counts}
    assert run.success["since"] == run.info()["since"] == expected
    changes = run.changes()
    assert changes[["image_uri", "change"]].to_numpy().tolist() == [
        [image(inputs, 1), "changed"],
        [image(inputs, 2), "gone"],
        [image(inputs, 7), "new"],
    ]
    first = Run(out(inputs)).manifest().set_index("image_uri")["version"]
    assert changes["earlier_version"].tolist()[:2] == first[[image(inputs, 1), image(inputs, 2)]].tolist()


def test_all_runs_together_are_one_run_over_everything(inputs: Inputs) -> None:
    since(inputs, "second")
    STORAGE.write(image(inputs, 7), png(picture(97)))
    third = since(inputs, "third", "second")
    assert third.manifest()["image_uri"].tolist() == [image(inputs, 7)]
    newest = {}
    for name in ("out", "second", "third"):
        newest |= predictions_of(out(inputs, name))
        for uri in Run(out(inputs, name)).changes().query("change == 'gone'")["image_uri"] if name != "out" else ():
            del newest[uri]
    run_here(config_of(inputs, output=out(inputs, "all")))
    assert newest == predictions_of(out(inputs, "all"))


def test_an_image_that_comes_back_is_new(inputs: Inputs) -> None:
    since(inputs, "second")
    STORAGE.write(image(inputs, 2), png(picture(2)))
    assert since(inputs, "third", "second").success["since"]["new"] == 1


def test_nothing_new_is_a_committed_run_of_no_images(inputs: Inputs) -> None:
    since(inputs, "second")
    run = since(inputs, "third", "second")
    assert run.success["images"] == 0 and len(run.changes()) == 0
    assert run.success["since"]["unchanged"] == 6 and verify(run.output).ok


def test_pictures_of_earlier_runs_are_no_inputs(inputs: Inputs) -> None:
    among = {"output": join(inputs.root, "images", "out")}
    run_here(config_of(inputs, **among))
    STORAGE.write(join(among["output"], "report", "contact_sheet.png"), png(picture(5)))
    changes = {"since": among["output"], "output": join(inputs.root, "images", "second")}
    run_here(config_of(inputs, **changes))
    assert Run(changes["output"]).success["images"] == 0


def test_a_submission_that_was_cut_off_goes_on(inputs: Inputs) -> None:
    config = config_of(inputs, output=out(inputs, "second"), since=out(inputs), shard_images=1)
    run_here(config)
    before = predictions_of(out(inputs, "second"))
    parts = sorted(info.uri for info in STORAGE.list(out(inputs, "second/predictions")))
    assert len(parts) == 2
    for uri in (parts[1], out(inputs, "second/_SUCCESS.json")):
        STORAGE.delete(uri)
    run_here(config)
    assert predictions_of(out(inputs, "second")) == before and verify(out(inputs, "second")).ok


def test_resubmitted_after_other_changes_it_is_refused(inputs: Inputs) -> None:
    since(inputs, "second")
    STORAGE.delete(image(inputs, 3))
    with pytest.raises(RunConflict, match="new, changed or gone"):
        since(inputs, "second")
    with pytest.raises(RunConflict, match=r"since was .*out', now None.*the inputs differ"):
        run_here(config_of(inputs, output=out(inputs, "second")))


def test_another_network_or_other_settings_are_refused(inputs: Inputs) -> None:
    with pytest.raises(RunConflict, match="confidence_maps was False, now True"):
        since(inputs, "second", confidence_maps=True)
    STORAGE.write(join(inputs.root, "network.safetensors"), to_bytes(narrow_network(seed=4)))
    with pytest.raises(RunConflict, match=r"checkpoint was .*network.safetensors, with other bytes"):
        since(inputs, "second")
    assert STORAGE.list(out(inputs, "second")) == []


def test_an_uncommitted_run_is_nothing_to_be_since(inputs: Inputs) -> None:
    STORAGE.delete(out(inputs, "out/_SUCCESS.json"))
    with pytest.raises(IncompleteRun, match="not committed"):
        since(inputs, "second")
    with pytest.raises(ValidationError, match="the output itself"):
        since(inputs, "out")


def test_runs_that_name_each_other_are_refused(inputs: Inputs) -> None:
    since(inputs, "second")
    success = json.loads(STORAGE.read(out(inputs, "out/_SUCCESS.json")))
    STORAGE.write(
        out(inputs, "out/_SUCCESS.json"), json.dumps({**success, "since": {"output": out(inputs, "second")}}).encode()
    )
    with pytest.raises(ConfigError, match="says the same"):
        since(inputs, "third", "second")


@pytest.fixture
def labeled(tmp_path: Path) -> Inputs:
    """Write and segment five images: one is damaged, one has a label of another size."""
    inputs = write_inputs(str(tmp_path), 5, bad=(0,))
    STORAGE.write(join(inputs.root, "labels", "00001.png"), png(label(1, 8, 8)))
    run_here(config_of(inputs, max_error_fraction=1))
    return inputs


def changes_of(run: Run) -> dict[str, str]:
    """Return the change of each image by its number, after a check of the whole run."""
    assert verify(run.output).ok
    return {Path(uri).stem[-1]: kind for uri, kind in run.changes()[["image_uri", "change"]].to_numpy()}


def test_errors_are_retried_until_they_succeed(labeled: Inputs) -> None:
    STORAGE.write(join(labeled.root, "labels", "00001.png"), png(label(1)))
    options: dict[str, object] = {"retry_errors": True, "max_error_fraction": 1}
    assert changes_of(since(labeled, "second")) == {}
    third = since(labeled, "third", "second", **options)
    assert changes_of(third) == {"0": "retried", "1": "retried"} and third.success["since"]["retried"] == 2
    assert third.predictions(["status"])["status"].tolist() == ["error", "ok"]
    version = third.manifest()["version"].tolist()
    assert third.changes()["version"].tolist() == third.changes()["earlier_version"].tolist() == version
    # The newest row of an image counts: what succeeded is not tried again.
    assert changes_of(since(labeled, "fourth", "third", **options)) == {"0": "retried"}


def test_changed_labels_are_scored_again(labeled: Inputs) -> None:
    first = Run(out(labeled)).manifest().set_index("image_uri")["label_version"]
    STORAGE.write(join(labeled.root, "labels", "00003.png"), png(label(13, 41, 30)))
    assert changes_of(since(labeled, "second")) == {}
    third = since(labeled, "third", "second", relabeled=True)
    assert changes_of(third) == {"3": "relabeled"} and third.success["since"]["relabeled"] == 1
    (row,) = third.changes().to_dict("records")
    assert row["earlier_version"] == first[image(labeled, 3)] != row["version"]
    assert row["version"] == third.manifest()["label_version"].item()
    assert changes_of(since(labeled, "fourth", "third", relabeled=True)) == {}


def test_a_label_without_a_known_version_is_scored_again_once(labeled: Inputs) -> None:
    """Images 1 and 2 in a list; image 1 fails, and the list's first run asks for no version of a label."""
    rows = [{"image_uri": image(labeled, n), "label_uri": join(labeled.root, f"labels/0000{n}.png")} for n in (1, 2)]
    STORAGE.write(join(labeled.root, "list.jsonl"), "\n".join(map(json.dumps, rows)).encode())
    options: dict[str, object] = {"images": join(labeled.root, "list.jsonl"), "labels": None, "max_error_fraction": 1}
    run_here(config_of(labeled, output=out(labeled, "listed"), **options))
    assert Run(out(labeled, "listed")).manifest()["label_version"].isna().all()
    assert changes_of(since(labeled, "second", "listed", **options)) == {}
    both = {**options, "relabeled": True, "retry_errors": True}
    assert changes_of(since(labeled, "third", "second", **both)) == {"1": "relabeled", "2": "relabeled"}
    assert changes_of(since(labeled, "fourth", "third", **both)) == {"1": "retried"}


def test_both_options_need_an_earlier_run(labeled: Inputs) -> None:
    for option in ("relabeled", "retry_errors"):
        with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')} compares with .*add --since URI"):
            run_here(config_of(labeled, output=out(labeled, "second"), **{option: True}))


def test_manifests_without_versions_of_labels_are_kept(labeled: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose first manifest file was written by version 0.2.0 goes on, and its labels count as changed."""
    monkeypatch.setattr(shards, "_PART_ROWS", 3)
    config = config_of(labeled, output=out(labeled, "second"), max_error_fraction=1)
    claim(make_plan(config, STORAGE), STORAGE)
    first = join(config.output, "manifest/part-000000.parquet")
    old = pq.read_table(first).drop_columns(["label_version"])
    pq.write_table(old, first)
    run_here(config)
    assert Run(config.output).manifest()["label_version"].notna().tolist() == [False, False, False, True, True]
    third = since(labeled, "third", "second", relabeled=True, max_error_fraction=1)
    assert changes_of(third) == {"0": "relabeled", "1": "relabeled", "2": "relabeled"}
    STORAGE.delete(image(labeled, 4))
    with pytest.raises(RunConflict, match=r"\(0 new, 1 gone, 0 changed, such as"):
        run_here(config)


def test_verify_compares_changes_with_the_inputs(inputs: Inputs) -> None:
    run = since(inputs, "second")
    success = {**run.success, "since": {**run.success["since"], "new": 2}}
    STORAGE.write(out(inputs, "second/_SUCCESS.json"), json.dumps(success).encode())
    assert "2 images are new" in verify(run.output).text()
