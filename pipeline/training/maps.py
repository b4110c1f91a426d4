"""The maps that a phase needs, as work to be shared out: what is missing, and how to compute a part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from model.checkpoint import from_bytes
from model.network import DilatedNetwork
from pipeline.data.storage import Storage, join
from pipeline.training.config import TrainConfig
from pipeline.training.initial_weights import initial_network
from pipeline.training.map_cache import MapCache
from pipeline.training.recipe_schema import StageInput
from pipeline.training.sources import Images, Sources

__all__ = ["MapWork", "Task", "map_caches"]

# Split, number of the image in it, mirrored.
Task = tuple[Literal["train", "val"], int, bool]


def map_caches(config: TrainConfig, storage: Storage, network: DilatedNetwork) -> dict[StageInput, MapCache]:
    """The caches that a recipe uses, by kind, on the weights that `network` has now."""
    recipe, root, caches = config.recipe, config.maps or config.output, dict[StageInput, MapCache]()
    precision = "bfloat16" if config.gpus_per_worker else "float32"
    if recipe.frozen_convolutions:
        caches["features"] = MapCache(storage, root, network, "features", precision=precision)
    if "context" in recipe.stages and recipe.stage_input("context") == "scores":
        caches["scores"] = MapCache(storage, root, network, "scores", caches.get("features"), precision)
    return caches


class MapWork:
    """All maps of one kind.

    Args:
        config: of the run.
        kind: which maps.
        storage: for reading and writing.
        device: to compute on.
    """

    def __init__(
        self, config: TrainConfig, kind: StageInput, storage: Storage, device: torch.device | None = None
    ) -> None:
        self._config, self._sources = config, Sources(config, storage)
        self._learned = self._sources.of("context") if kind == "scores" else self._sources.all
        network = _network(config, kind, storage).to(device or torch.device("cpu"))
        self._cache = map_caches(config, storage, network.to(memory_format=torch.channels_last))[kind]

    def missing(self) -> list[Task]:
        """What has not been computed yet; validation images first, and never mirrored."""
        mirrors = (False, True) if self._config.recipe.mirror else (False,)
        tasks: list[Task] = [("val", *key) for key in self._cache.missing(self._sources.working_val, [False])]
        return [*tasks, *(("train", *key) for key in self._cache.missing(self._learned, mirrors))]

    def compute(self, tasks: Sequence[Task], on_map: Callable[[], None] = lambda: None) -> None:
        """Computes and writes some of them."""
        for split in ("val", "train"):
            keys = [(index, mirror) for name, index, mirror in tasks if name == split]
            self._cache.fill(self._images(split), keys, on_map)

    def _images(self, split: str) -> Images:
        return self._sources.working_val if split == "val" else self._learned


def _network(config: TrainConfig, kind: StageInput, storage: Storage) -> DilatedNetwork:
    """The network whose maps are wanted: as it starts, or as the stages before the context stage left it."""
    before = [stage for stage in config.recipe.stages if stage in ("front_end", "fine_tune")]
    if kind == "features" or not before:
        return initial_network(config.recipe, storage)[0]
    return from_bytes(storage.read(join(config.output, "stages", f"{before[-1]}.safetensors")))
