"""Tests that a mistyped prefix is refused before any work, instead of giving an empty run or one without scores."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
import torch

from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError
from pipeline.segmentation.runs.plan import make_plan
from tests.segmentation.support import config_of, label, picture, png, run_here, write_inputs

STORAGE = Storage()


@pytest.mark.parametrize("images", ["images", "no-such-folder", "images/*.jpg"])
def test_no_image_is_refused_and_names_the_prefix(tmp_path: Path, images: str) -> None:
    inputs = write_inputs(str(tmp_path), 0)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "notes.md").write_text("no image")
    config = config_of(inputs, images=str(tmp_path / images), labels=None)
    with pytest.raises(ConfigError, match=rf"no image below {tmp_path}/{images.replace('*', '[*]')}: .*--allow-empty"):
        make_plan(config, STORAGE)
    assert make_plan(config.model_copy(update={"allow_empty": True}), STORAGE).manifest.num_rows == 0


def test_a_limit_of_zero_asks_for_no_image(tmp_path: Path) -> None:
    assert make_plan(config_of(write_inputs(str(tmp_path), 2), limit=0), STORAGE).manifest.num_rows == 0


def test_labels_of_which_none_pairs_are_refused_with_the_name_looked_for(tmp_path: Path) -> None:
    inputs = write_inputs(str(tmp_path), 3, labelled=False)
    STORAGE.write(join(inputs.root, "labels", "other.png"), png(label(0)))
    with pytest.raises(ConfigError) as told:
        make_plan(config_of(inputs), STORAGE)
    for part in (f"{tmp_path}/labels", f"{tmp_path}/images", f"{tmp_path}/labels/00000 with the suffix"):
        assert part in str(told.value)
    assert make_plan(config_of(inputs, labels=None), STORAGE).manifest.num_rows == 3


def test_new_images_may_wait_for_their_labels(tmp_path: Path) -> None:
    inputs = write_inputs(str(tmp_path), 2)
    run_here(config_of(inputs))
    STORAGE.write(join(inputs.root, "images", "later.png"), png(picture(7)))
    later = config_of(inputs, output=str(tmp_path / "later"), since=str(tmp_path / "out"))
    assert make_plan(later, STORAGE).manifest.num_rows == 1


def test_images_without_a_label_are_counted_and_three_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = write_inputs(str(tmp_path), 6)
    for index in (1, 2, 4, 5):
        (tmp_path / "labels" / f"{index:05d}.png").unlink()
    with caplog.at_level(logging.WARNING):
        make_plan(config_of(inputs), STORAGE)
    (line,) = [record.message for record in caplog.records if "have no label" in record.message]
    assert line.startswith("4 of 6 images have no label") and line.count(".png") == 3


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_named_and_never_loaded(tmp_path: Path, zipped: bool) -> None:
    inputs = write_inputs(str(tmp_path), 1)
    sink = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, sink, _use_new_zipfile_serialization=zipped)
    STORAGE.write(join(inputs.root, "network.pth"), sink.getvalue())
    with pytest.raises(ConfigError, match=r"PyTorch pickle .* safetensors\.torch\.save_file"):
        make_plan(config_of(inputs, checkpoint=join(inputs.root, "network.pth")), STORAGE)
