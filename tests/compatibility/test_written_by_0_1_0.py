"""Tests on a committed run, an interrupted run and an interrupted training that version 0.1.0 wrote.

The archive holds images, labels and outputs as that version left them below `s3://tests/written-by-0.1.0`. The rows
name these URIs, so the objects are written there again.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.files.checkpoint import from_bytes
from pipeline.data.storage import Storage, join
from pipeline.errors import RunConflict
from pipeline.results.tables import Run
from pipeline.results.verify import verify
from pipeline.training.config import TrainConfig
from pipeline.training.recipes.schema import Recipe
from pipeline.training.runs.run import train
from tests.segmentation.support import Inputs, assert_same_tables, config_of, run_here
from tests.shared import STORAGE
from tests.training.support import run_phase_here

ARCHIVE = Path(__file__).parent / "written_by_0.1.0.zip"
ROOT = "s3://tests/written-by-0.1.0"


@pytest.fixture
def objects(bucket: str) -> str:
    """Write all objects of the archive once, and return their common prefix."""
    assert bucket.startswith("s3://tests/")
    if STORAGE.exists(join(ROOT, "committed/run.json")):
        return ROOT
    with zipfile.ZipFile(ARCHIVE) as archive:
        for name in archive.namelist():
            STORAGE.write(join(ROOT, name), archive.read(name))
    return ROOT


def config(output: str, **changes: Any) -> Any:
    return config_of(Inputs(join(ROOT, "images")), output=join(ROOT, output), max_error_fraction=0.5, **changes)


def test_a_committed_run_is_read_and_verified(objects: str) -> None:
    run = Run(join(objects, "committed"))
    assert verify(run.output).ok
    assert run.success["images"] == 7 and len(run.class_scores()) == 4
    assert run.mask(run.manifest()["image_uri"][0]).shape == (41, 30)


def test_an_interrupted_run_is_resumed_to_the_same_tables(objects: str) -> None:
    run_here(config("interrupted"))
    assert_same_tables(join(objects, "interrupted"), join(objects, "committed"))
    assert verify(join(objects, "interrupted")).ok


def test_a_run_with_another_setting_is_refused(objects: str) -> None:
    with pytest.raises(RunConflict, match="confidence"):
        run_here(config("committed", confidence_maps=True))


def submit(recipe: Recipe, output: str) -> None:
    settings = TrainConfig(data=(join(ROOT, "data"),), output=output, recipe=recipe)
    train(settings, lambda config: None, lambda config, phase, lease: run_phase_here(config, phase), Storage())


def test_an_interrupted_training_is_resumed_to_the_same_network(objects: str) -> None:
    output = join(objects, "training")
    submit(Recipe(**json.loads(STORAGE.read(join(output, "recipe.json")))["recipe"]), output)
    ours, theirs = (
        from_bytes(STORAGE.read(uri)).state_dict()
        for uri in (join(output, "network.safetensors"), join(objects, "trained/network.safetensors"))
    )
    # Equal to the last bit on one machine; other processors round sums differently.
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name].numpy(), value.numpy(), rtol=1e-3, atol=1e-4)


def test_a_training_with_another_recipe_is_refused(objects: str) -> None:
    output = join(objects, "training")
    recipe = Recipe(**json.loads(STORAGE.read(join(output, "recipe.json")))["recipe"])
    with pytest.raises(RunConflict):
        submit(recipe.model_copy(update={"seed": recipe.seed + 1}), output)
