"""Tests of identity, claim and refusals, on a real bucket."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.object_store import ObjectStore
from model.files.checkpoint import to_bytes
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, RunConflict
from pipeline.results.schema.encoding import parquet_bytes
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.runs.claim import claim
from pipeline.segmentation.runs.plan import make_plan
from pipeline.segmentation.runs.shards import ShardReader, manifest_difference, part_rows
from tests.segmentation.support import Inputs, config_of, narrow_network, picture, png, write_inputs
from tests.shared import STORAGE


@pytest.fixture
def inputs(bucket: str) -> Inputs:
    return write_inputs(bucket, 5)


def identity(inputs: Inputs, **changes: object) -> str:
    return make_plan(config_of(inputs, **changes), STORAGE).identity


def test_identity_ignores_what_cannot_change_a_pixel(inputs: Inputs) -> None:
    free = {"actors": 7, "cpus_per_actor": 3.0, "window": 400, "max_error_fraction": 0.5, "no_progress_minutes": 1.0}
    assert identity(inputs) == identity(inputs, **free)


@pytest.mark.parametrize(
    "change",
    [
        {"confidence_maps": True},
        {"shard_images": 2},
        {"limit": 3},
        {"labels": None},
        {"flip": True},
        {"scales": (0.5, 1.0)},
        {"gpus_per_actor": 0.5},
    ],
)
def test_identity_follows_what_changes_the_tables(inputs: Inputs, change: dict[str, object]) -> None:
    assert identity(inputs) != identity(inputs, **change)


def test_views_that_are_not_asked_for_leave_identities_as_they_were(inputs: Inputs) -> None:
    assert not {"flip", "scales", "device", "precision"} & set(
        config_of(inputs, flip=False, scales=(1.0,)).identity_settings()
    )
    assert identity(inputs, scales=(0.5, 1.0)) == identity(inputs, scales=(1.0, 0.5))
    assert identity(inputs, scales=(0.5, 1.0)) != identity(inputs, scales=(0.5,))


def test_what_an_earlier_run_had_in_use_is_named_too(inputs: Inputs) -> None:
    claim(make_plan(config_of(inputs, scales=(0.5, 1.0)), STORAGE), STORAGE)
    with pytest.raises(RunConflict, match=r"scales was \[0.5, 1.0\], now \[1.0\]"):
        claim(make_plan(config_of(inputs), STORAGE), STORAGE)


def test_a_run_of_another_device_is_refused_by_name(inputs: Inputs) -> None:
    """Its labels were computed in another precision."""
    claim(make_plan(config_of(inputs, gpus_per_actor=1.0), STORAGE), STORAGE)
    settings = json.loads(STORAGE.read(join(inputs.root, "out", "run.json")))["settings"]
    assert (settings["device"], settings["precision"]) == ("cuda", "bfloat16")
    with pytest.raises(RunConflict, match="device was 'cuda', now 'cpu'; precision was 'bfloat16', now 'float32'"):
        claim(make_plan(config_of(inputs), STORAGE), STORAGE)


def test_identity_follows_network_and_images(inputs: Inputs) -> None:
    first = identity(inputs)
    STORAGE.write(join(inputs.root, "images", "00001.png"), png(picture(77)))
    second = identity(inputs)
    STORAGE.write(join(inputs.root, "network.safetensors"), to_bytes(narrow_network(seed=4)))
    assert len({first, second, identity(inputs)}) == 3


@pytest.mark.parametrize(("shard_images", "files"), [(3, 2), (1, 5), (4, 2), (100, 1)])
def test_the_frozen_manifest_lies_in_files_of_whole_shards(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, shard_images: int, files: int
) -> None:
    monkeypatch.setattr("pipeline.segmentation.runs.shards._PART_ROWS", shard_images)
    plan = make_plan(config_of(inputs, shard_images=shard_images), STORAGE)
    claim(plan, STORAGE)
    reader = ShardReader(STORAGE, plan.config.output, shard_images)
    rows = [row for shard in range(plan.shards) for row in reader.rows(shard)]
    assert rows == list(plan.manifest.rows()) and len(rows) == 5
    assert len(STORAGE.list(join(plan.config.output, "manifest"))) == len(plan.frozen_files()) == files


def test_a_manifest_of_a_million_files_does_not_differ_from_itself(inputs: Inputs) -> None:
    """Limit: both manifests are merged in the order of their rows, which is not that of the file names as text."""
    plan = make_plan(config_of(inputs), STORAGE)
    for number, start in ((999_999, 0), (1_000_000, 3)):
        data = parquet_bytes(plan.manifest.slice(start, 3))
        STORAGE.write(join(plan.config.output, f"manifest/part-{number:06d}.parquet"), data)
    assert "0 new, 0 gone, 0 changed" in manifest_difference(STORAGE, plan.config.output, plan.manifest)


@given(st.integers(1, 10_000))
def test_a_shard_never_lies_in_two_files(shard_images: int) -> None:
    assert part_rows(shard_images) % shard_images == 0 and 0 < part_rows(shard_images) <= 16_384


def test_pictures_below_the_output_are_no_inputs(inputs: Inputs) -> None:
    output = join(inputs.root, "images", "out")
    before = identity(inputs, output=output)
    STORAGE.write(join(output, "report", "contact_sheet.png"), png(picture(5)))
    STORAGE.write(join(inputs.root, "images-of-another-run", "a.png"), png(picture(6)))
    assert identity(inputs, output=output) == before


def test_a_claim_can_be_repeated_and_says_whose_it_is(inputs: Inputs) -> None:
    plan = make_plan(config_of(inputs), STORAGE)
    claim(plan, STORAGE)
    claim(make_plan(config_of(inputs, actors=1), STORAGE), STORAGE)
    written = json.loads(STORAGE.read(join(plan.config.output, "run.json")))
    assert written["identity"] == plan.identity and written["run_id"] == plan.run_id


def test_another_run_is_refused_with_what_differs(inputs: Inputs) -> None:
    claim(make_plan(config_of(inputs), STORAGE), STORAGE)
    STORAGE.write(join(inputs.root, "images", "new.png"), png(picture(78)))
    STORAGE.delete(join(inputs.root, "images", "00002.png"))
    STORAGE.write(join(inputs.root, "network.safetensors"), to_bytes(narrow_network(seed=4)))
    with pytest.raises(RunConflict) as refusal:
        claim(make_plan(config_of(inputs, confidence_maps=True, flip=True), STORAGE), STORAGE)
    for words in (
        "confidence_maps was False, now True; flip was False, now True",
        "checkpoint",
        "1 new, 1 gone",
        "new.png",
        "another --output",
    ):
        assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": "{root}/absent.safetensors"}, "absent.safetensors"),
        ({"checkpoint": "{root}/images/00000.png"}, "not a usable checkpoint"),
        ({"images": "s3://no-such-bucket-here/x"}, "no-such-bucket-here"),
        ({"label_space": "camvid_segnet"}, "11 classes, the checkpoint 4"),
        ({"label_space": "nonsense"}, "nonsense"),
        ({"labels": None, "label_space": "camvid_segnet"}, "no effect without labels"),
        ({"geometry": "reference"}, "--geometry image"),
        ({"geometry": "reference", "flip": True, "checkpoint": "{root}/tiles.safetensors"}, "--flip and --scales"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    inputs: Inputs, changes: dict[str, object], message: str
) -> None:
    network = narrow_network()
    network.spec = replace(network.spec, reference_window=(900, 900))
    STORAGE.write(join(inputs.root, "tiles.safetensors"), to_bytes(network))
    filled = {k: v.format(root=inputs.root) if isinstance(v, str) else v for k, v in changes.items()}
    with pytest.raises(ConfigError, match=message):
        make_plan(config_of(inputs, **filled), STORAGE)
    assert STORAGE.list(join(inputs.root, "out")) == []


def test_labels_of_other_classes_are_refused_at_once(inputs: Inputs) -> None:
    for index in range(5):
        STORAGE.write(join(inputs.root, "labels", f"{index:05d}.png"), png(np.full((24, 32), 17, np.uint8)))
    with pytest.raises(ConfigError, match=r"contradict the checkpoint's 4 classes.*\[17\].*--label-space"):
        make_plan(config_of(inputs), STORAGE)


def test_one_label_of_other_classes_is_no_reason_to_refuse(inputs: Inputs) -> None:
    STORAGE.write(join(inputs.root, "labels", "00000.png"), png(np.full((24, 32), 17, np.uint8)))
    assert make_plan(config_of(inputs), STORAGE).shards == 2


def test_a_read_only_output_is_refused(
    inputs: Inputs, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.reader_env.items():
        monkeypatch.setenv(name, value)
    storage = Storage()
    plan = make_plan(config_of(inputs), storage)
    with pytest.raises(ConfigError, match=r"out cannot be written.*access denied"):
        claim(plan, storage)


def test_paths_are_made_absolute_and_one_spelling() -> None:
    config = SegmentConfig(images="in", checkpoint="file:///w/n.safetensors", output="s3a://bucket/out", labels=None)
    assert Path(config.images) == Path("in").absolute()
    assert (config.checkpoint, config.output, config.labels) == ("/w/n.safetensors", "s3://bucket/out", None)
