"""Computation of the maps that a phase needs, as tasks that can be shared between workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from model.dilated.network import DilatedNetwork
from model.files.checkpoint import from_bytes
from pipeline.data.storage import Storage, join
from pipeline.training.config import TrainConfig
from pipeline.training.engine.initial_weights import initial_network
from pipeline.training.feature_maps.cache import MapCache
from pipeline.training.recipes.schema import StageInput
from pipeline.training.samples.sources import Images, Sources

__all__ = ["FeaturePrecompute", "Task", "map_caches"]

# One map to compute: split, index of the image in the split, and whether the image is mirrored.
Task = tuple[Literal["train", "val"], int, bool]


def map_caches(config: TrainConfig, storage: Storage, network: DilatedNetwork) -> dict[StageInput, MapCache]:
    """Return the map caches that a recipe uses, by kind, keyed by the current weights of `network`."""
    recipe = config.recipe
    root = config.maps or config.output
    caches = dict[StageInput, MapCache]()
    precision = "bfloat16" if config.gpus_per_worker else "float32"
    if recipe.frozen_convolutions:
        caches["features"] = MapCache(storage, root, network, "features", precision=precision)
    if "context" in recipe.stages and recipe.stage_input("context") == "scores":
        caches["scores"] = MapCache(storage, root, network, "scores", caches.get("features"), precision)
    return caches


class FeaturePrecompute:
    """Computation of all maps of one kind for the images of a run.

    Args:
        config: Configuration of the run.
        kind: Kind of the maps, `features` (conv5_3 maps) or `scores`.
        storage: Storage of images, weights and maps.
        device: Device that computes the maps; None: the CPU.
    """

    def __init__(
        self, config: TrainConfig, kind: StageInput, storage: Storage, device: torch.device | None = None
    ) -> None:
        self._config = config
        self._sources = Sources(config, storage)
        # Only the context stage uses score maps; conv5_3 maps serve every stage.
        self._learned = self._sources.of("context") if kind == "scores" else self._sources.all
        network = _network(config, kind, storage).to(device or torch.device("cpu"))
        self._cache = map_caches(config, storage, network.to(memory_format=torch.channels_last))[kind]

    def missing(self) -> list[Task]:
        """Return the tasks that are not computed yet: validation images first, which are never mirrored."""
        mirrors = (False, True) if self._config.recipe.mirror else (False,)
        tasks: list[Task] = [("val", *key) for key in self._cache.missing(self._sources.working_val, [False])]
        return [*tasks, *(("train", *key) for key in self._cache.missing(self._learned, mirrors))]

    def compute(self, tasks: Sequence[Task], on_map: Callable[[], None] = lambda: None) -> None:
        """Compute the maps of some tasks and write them to the cache.

        Args:
            tasks: Tasks to compute.
            on_map: Callback after each map.
        """
        for split in ("val", "train"):
            keys = [(index, mirror) for name, index, mirror in tasks if name == split]
            self._cache.fill(self._images(split), keys, on_map)

    def _images(self, split: str) -> Images:
        return self._sources.working_val if split == "val" else self._learned


def _network(config: TrainConfig, kind: StageInput, storage: Storage) -> DilatedNetwork:
    """Return the network that computes the maps: the initial one, or the one after the last front-end stage."""
    before = [stage for stage in config.recipe.stages if stage in ("front_end", "fine_tune")]
    if kind == "features" or not before:
        return initial_network(config.recipe, storage)[0]
    return from_bytes(storage.read(join(config.output, "stages", f"{before[-1]}.safetensors")))
