"""Tests of a dry run's output and pictures, and that it leaves nothing else."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from pipeline.data.storage import join
from pipeline.training.config import TrainConfig
from pipeline.training.preparation.dry_run import dry_run
from pipeline.training.recipes.schema import NetworkConfig
from tests.shared import STORAGE
from tests.training.support import SPACE, small_recipe, write_data


@pytest.mark.parametrize("upsampling", ["grid", "deconvolution"])
def test_every_stage_is_drawn_and_estimated(tmp_path: object, upsampling: str) -> None:
    root = write_data(join(str(tmp_path), "data"), train=4, val=1)
    output = join(str(tmp_path), "run")
    network = NetworkConfig(scale=1 / 32, fc=8, upsampling=upsampling)  # type: ignore[arg-type]
    config = TrainConfig(data=root, output=output, recipe=small_recipe(network=network), workers=2)
    lines = list(dry_run(config, STORAGE))
    head = next(number for number, line in enumerate(lines) if line.startswith("small: "))
    assert re.match(r"small: 0\.\d+ million parameters, 4 images for training, 1 for validation", lines[head])
    for line, stage in zip(lines[head + 1 : -1], ("front_end", "context", "joint"), strict=True):
        assert re.match(rf"{stage}: 3 crops of 404 pixels per step, at most 2 on each of 2 worker", line), line
        assert re.search(
            r": \d+\.\d+ s, at most \d+\.\d+ GiB, loss 2\.\d+\. .* about \d+\.\d minutes for \d+ steps", line
        )
    names = [info.uri.removeprefix(f"{output}/") for info in STORAGE.list(output)]
    assert names == [f"dry-run/{name}" for name in ("context.png", "front_end.png", "index.html", "joint.png")]
    picture = np.asarray(Image.open(io.BytesIO(STORAGE.read(join(output, "dry-run/front_end.png")))))
    colours = {tuple(colour) for colour in picture.reshape(-1, 3)[::7].tolist()}
    # The legend has the four classes of the scenes, and void outside of the image is drawn.
    assert {tuple(colour) for colour in SPACE.palette[:4]} <= colours
