"""Tests of the order of maps and stages, and of the position of a run in it."""

from __future__ import annotations

import pytest

from pipeline.data.storage import join
from pipeline.training.recipes.registry import recipe
from pipeline.training.recipes.schema import NetworkConfig, Recipe, StageConfig
from pipeline.training.runs.checkpoints import Phase, current_phase, newest_place, phases
from tests.shared import STORAGE
from tests.training.support import small_recipe

FROZEN = NetworkConfig(scale=1 / 32, fc=8, weights="vgg.safetensors")


def test_score_maps_come_between_front_end_and_context() -> None:
    assert phases(small_recipe()) == (Phase((), ("front_end",)), Phase(("scores",), ("context", "joint")))


def test_frozen_convolutions_put_their_maps_first() -> None:
    frozen = small_recipe(network=FROZEN, frozen_convolutions=True)
    features = ("features",)
    both = ("features", "scores")
    assert phases(frozen) == (Phase(features, ("front_end",)), Phase(both, ("context", "joint")))


def test_a_context_stage_with_dropout_needs_no_maps_of_its_own() -> None:
    blurred = recipe("camvid_frozen_vgg16")
    assert phases(blurred) == (Phase(("features",), ("front_end", "context", "joint")),)
    scaled = small_recipe(random_scale=(0.5, 2.0))
    assert phases(scaled) == (Phase((), ("front_end", "context", "joint")),)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc_context_large", (Phase(("scores",), ("context",)),)),
        ("camvid_dilation8", (Phase((), ("front_end", "joint")),)),
        ("voc_coco_front_end", (Phase((), ("front_end", "fine_tune")),)),
        ("cityscapes_dilation10", (Phase((), ("front_end",)), Phase(("scores",), ("context", "joint")))),
    ],
)
def test_phases_of_the_papers_recipes(name: str, expected: tuple[Phase, ...]) -> None:
    assert phases(recipe(name)) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), ("front_end",)),
        (("00-front_end-0000002",), ("front_end",)),
        (("00-front_end-0000002", "02-context-0000000"), ("context", "joint")),
        (("03-joint-0000001",), ("context", "joint")),
    ],
)
def test_the_newest_checkpoint_tells_the_phase(
    tmp_path: object, names: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    for name in names:
        STORAGE.write(join(str(tmp_path), "checkpoints", f"{name}.safetensors"), b"state")
    assert current_phase(small_recipe(), STORAGE, str(tmp_path)).stages == expected


def test_names_that_are_no_checkpoints_tell_nothing(tmp_path: object) -> None:
    STORAGE.write(join(str(tmp_path), "checkpoints", "notes.txt"), b"x")
    assert newest_place(STORAGE, str(tmp_path)) is None


def test_a_recipe_without_context_stage_has_one_phase() -> None:
    bare = Recipe(**{**small_recipe().model_dump(), "context": StageConfig(), "joint": StageConfig()})
    assert phases(bare) == (Phase((), ("front_end",)),)
