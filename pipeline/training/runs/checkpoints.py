"""Checkpoints of a training run, and the phase of the run that they have reached."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from model.errors import CheckpointError
from model.files.checkpoint import network_tensors, read_metadata
from model.networks.network import Network
from pipeline.data.storage import Storage, join
from pipeline.training.recipes.schema import STAGES, Recipe, StageInput, StageName

__all__ = [
    "CHECKPOINT_NAME",
    "Phase",
    "Position",
    "current_phase",
    "load_state",
    "newest",
    "newest_place",
    "phases",
    "restore_optimizer",
    "save_state",
]

# Stage number, stage name and iteration, padded to seven digits. From 10,000,000 iterations on, the order of names as
# text is not the order of training.
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
    uris = _by_age(storage, join(output, "checkpoints"))
    return _place(uris[0]) if uris else None


def _by_age(storage: Storage, folder: str) -> list[str]:
    """Return the URIs of all checkpoints, newest first: by stage, then by iteration."""
    places = {info.uri: _place(info.uri) for info in storage.list(folder)}
    found = [(place, uri) for uri, place in places.items() if place is not None]
    return [uri for _, uri in sorted(found, reverse=True)]


def _place(uri: str) -> tuple[int, int] | None:
    """Return stage number and iteration in the name of a checkpoint; None if the object is not one."""
    match = CHECKPOINT_NAME.fullmatch(uri.rsplit("/", 1)[-1])
    return None if match is None else (int(match[1]), int(match[3]))


logger = logging.getLogger(__name__)
_KEY = "dilated_training"


@dataclass(frozen=True)
class Position:
    """Position of a run: the next iteration, and the scores so far.

    Attributes:
        stage: Name of the current stage.
        iteration: Number of the next iteration of the stage, counted from 0.
        metrics: Validation scores of the finished stages, by name of the stage.
        best: Highest mean IoU (0–1) of a validation on the whole split so far; None before the first one.
    """

    stage: StageName
    iteration: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    best: float | None = None


@dataclass(frozen=True)
class State:
    """Content of a checkpoint.

    Attributes:
        position: Position of the run.
        tensors: Tensors of network and optimizer, by name.
    """

    position: Position
    tensors: Mapping[str, Tensor]


def save_state(
    storage: Storage,
    output: str,
    recipe_digest: str,
    position: Position,
    network: Network,
    optimizer: torch.optim.Optimizer,
    named: list[tuple[str, nn.Parameter]],
    keep: int = 2,
) -> None:
    """Write a checkpoint, then delete all but the `keep` newest.

    Args:
        storage: Storage of the run's output.
        output: URI of the run's output.
        recipe_digest: Digest of the recipe, which a resumed run must match.
        position: Position of the run.
        network: Network in training.
        optimizer: Optimizer whose state is saved.
        named: Parameters whose optimizer state is saved, with their names; empty at the start of a stage.
        keep: Number of checkpoints to keep.
    """
    # Names: network.<parameter>, and optimizer.<slot>.<parameter> for momenta and step counters.
    tensors = {f"network.{name}": tensor.contiguous() for name, tensor in network_tensors(network).items()}
    for name, parameter in named:
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    metadata = {_KEY: json.dumps({"recipe": recipe_digest, **asdict(position)})}
    folder = join(output, "checkpoints")
    name = f"{STAGES.index(position.stage):02d}-{position.stage}-{position.iteration:07d}.safetensors"
    storage.write(join(folder, name), save(tensors, metadata))
    # Delete only after the new checkpoint is complete, so that there is always one to resume from. Checkpoints that
    # sort before the new one are later ones that were skipped as damaged.
    found = _by_age(storage, folder)
    place = [uri.rsplit("/", 1)[-1] for uri in found].index(name)
    for uri in [*found[:place], *found[place + keep :]]:
        storage.delete(uri)


def newest(storage: Storage, output: str, recipe_digest: str) -> State | None:
    """Return the newest complete checkpoint of this recipe; None if there is none.

    Damaged checkpoints, and those of other recipes, are skipped with a warning.
    """
    for uri in _by_age(storage, join(output, "checkpoints")):
        try:
            return load_state(storage.read(uri), recipe_digest)
        except CheckpointError as error:
            logger.warning("checkpoint %s is passed over: %s", uri, error)
    return None


def load_state(data: bytes, recipe_digest: str) -> State:
    """Decode a checkpoint.

    Args:
        data: Bytes of the safetensors object.
        recipe_digest: Digest of the recipe, which the checkpoint must match.

    Raises:
        CheckpointError: If the checkpoint is damaged or belongs to another recipe.
    """
    described = read_metadata(data, _KEY)
    if described.get("recipe") != recipe_digest:
        raise CheckpointError("it belongs to another recipe")
    try:
        place = described["stage"], int(described["iteration"])
        position = Position(*place, described["metrics"], described["best"])
        return State(position, load(data))
    except Exception as error:
        raise CheckpointError(f"it is damaged ({error})") from error


def restore_optimizer(
    optimizer: torch.optim.Optimizer, named: list[tuple[str, nn.Parameter]], tensors: Mapping[str, Tensor]
) -> None:
    """Restore momenta and step counters of the optimizer from the tensors of a checkpoint.

    Args:
        optimizer: Optimizer to restore, in place.
        named: Parameters of the optimizer with their names.
        tensors: Tensors of the checkpoint; empty for a fresh optimizer.
    """
    for name, parameter in named:
        for key, value in tensors.items():
            kind, _, rest = key.partition(".")
            slot, _, owner = rest.partition(".")
            if kind == "optimizer" and owner == name:
                # AdamW keeps its step counter on the CPU; all other state is on the device of the parameter.
                place = value if slot == "step" else value.to(parameter.device)
                optimizer.state[parameter][slot] = place.clone()
