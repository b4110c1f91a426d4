"""Training state in one object per checkpoint, written with one PUT and never unpickled."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from model.checkpoint import network_tensors, read_metadata
from model.errors import CheckpointError
from model.network import DilatedNetwork
from pipeline.data.storage import Storage, join
from pipeline.training.phases import CHECKPOINT_NAME
from pipeline.training.recipe_schema import STAGES, StageName

__all__ = ["Position", "load_state", "newest", "restore_optimizer", "save_state"]

logger = logging.getLogger(__name__)
_KEY = "dilated_training"


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Attributes:
        stage: that is under way.
        iteration: the next one of it.
        metrics: of the stages that have ended.
        best: highest mean IoU of a validation on the whole split so far.
    """

    stage: StageName
    iteration: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    best: float | None = None


@dataclass(frozen=True)
class State:
    """A checkpoint as read: position, and tensors by name."""

    position: Position
    tensors: Mapping[str, Tensor]


def save_state(
    storage: Storage,
    output: str,
    recipe_digest: str,
    position: Position,
    network: DilatedNetwork,
    optimizer: torch.optim.Optimizer,
    named: list[tuple[str, nn.Parameter]],
    keep: int = 2,
) -> None:
    """Writes a checkpoint, then removes all but the `keep` newest."""
    tensors = {f"network.{name}": tensor.contiguous() for name, tensor in network_tensors(network).items()}
    for name, parameter in named:
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    metadata = {_KEY: json.dumps({"recipe": recipe_digest, **asdict(position)})}
    folder = join(output, "checkpoints")
    name = f"{STAGES.index(position.stage):02d}-{position.stage}-{position.iteration:07d}.safetensors"
    storage.write(join(folder, name), save(tensors, metadata))
    # Deleting comes after the new one is whole: there is always one to resume from. Those that sort before it are later
    # ones that were passed over as damaged.
    found = _by_age(storage, folder)
    place = [uri.rsplit("/", 1)[-1] for uri in found].index(name)
    for uri in [*found[:place], *found[place + keep :]]:
        storage.delete(uri)


def newest(storage: Storage, output: str, recipe_digest: str) -> State | None:
    """The newest checkpoint of this recipe that is whole; None if there is none.

    A damaged one is passed over with a warning.
    """
    for uri in _by_age(storage, join(output, "checkpoints")):
        try:
            return load_state(storage.read(uri), recipe_digest)
        except CheckpointError as error:
            logger.warning("checkpoint %s is passed over: %s", uri, error)
    return None


def load_state(data: bytes, recipe_digest: str) -> State:
    """Decodes a checkpoint.

    Raises:
        CheckpointError: if it is damaged or belongs to another recipe.
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
    """Puts momenta back where they were."""
    for name, parameter in named:
        for key, value in tensors.items():
            kind, _, rest = key.partition(".")
            slot, _, owner = rest.partition(".")
            if kind == "optimizer" and owner == name:
                # AdamW's step counter stays on the CPU, all else lies beside its parameter.
                place = value if slot == "step" else value.to(parameter.device)
                optimizer.state[parameter][slot] = place.clone()


def _by_age(storage: Storage, folder: str) -> list[str]:
    """Newest first."""
    found = [info.uri for info in storage.list(folder) if CHECKPOINT_NAME.fullmatch(info.uri.rsplit("/", 1)[-1])]
    return sorted(found, reverse=True)
