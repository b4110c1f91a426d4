"""Phases of a run in order: maps to compute first, then the stages that need them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.data.storage import Storage, join
from pipeline.training.recipes.schema import STAGES, Recipe, StageInput, StageName

__all__ = ["CHECKPOINT_NAME", "Phase", "current_phase", "newest_place", "phases"]

# Stage number, stage name and iteration; the padding makes names sort in the order of training.
CHECKPOINT_NAME = re.compile(r"(\d\d)-([a-z_]+)-(\d{7,})\.safetensors")


@dataclass(frozen=True)
class Phase:
    """Maps that are computed first, and the stages that one group of workers then runs.

    Attributes:
        feature_maps: Kinds of maps in the order of their computation.
        stages: Names of the stages in order.
    """

    feature_maps: tuple[StageInput, ...]
    stages: tuple[StageName, ...]


def phases(recipe: Recipe) -> tuple[Phase, ...]:
    """Return the phases of a run in order; score maps start a new phase, as they need a trained front end."""
    features: tuple[StageInput, ...] = ("features",) if recipe.frozen_convolutions else ()
    if "context" not in recipe.stages or recipe.stage_input("context") != "scores":
        return (Phase(features, recipe.stages),)
    split = recipe.stages.index("context")
    before = recipe.stages[:split]
    after = recipe.stages[split:]
    first = (Phase(features, before),) if before else ()
    return (*first, Phase((*features, "scores"), after))


def current_phase(recipe: Recipe, storage: Storage, output: str) -> Phase:
    """Return the phase of the newest checkpoint, or the first phase if there is none."""
    place = newest_place(storage, output)
    reached = 0 if place is None else place[0]
    return next(phase for phase in phases(recipe) if STAGES.index(phase.stages[-1]) >= reached)


def newest_place(storage: Storage, output: str) -> tuple[int, int] | None:
    """Return stage number and iteration of the newest checkpoint, read from its name; None if there is none."""
    names = [info.uri.rsplit("/", 1)[-1] for info in storage.list(join(output, "checkpoints"))]
    found = [match for name in names if (match := CHECKPOINT_NAME.fullmatch(name))]
    return max(((int(match[1]), int(match[3])) for match in found), default=None)
