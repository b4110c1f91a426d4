"""Cache of maps of whole images: maps before the head if `features` is frozen, score maps for the context stage.

The name of a map contains digests of all weights before it and of the image's version, so a map is never stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Literal

import torch
from safetensors.torch import load, save
from torch import Tensor

from model.files.checkpoint import from_bytes
from model.networks.dilated.geometry import DILATED
from model.networks.network import Network
from model.precision import precision_name
from model.prediction.dense_prediction import network_input, score_map
from model.prediction.upsampling import GRID
from pipeline.data.storage import Storage, join
from pipeline.errors import IncompleteRun, ObjectMissing
from pipeline.training.config import TrainConfig
from pipeline.training.engine.initial_weights import initial_network
from pipeline.training.engine.stages import evaluating
from pipeline.training.recipes.schema import StageInput
from pipeline.training.samples.sources import Images, Sources

__all__ = ["FeaturePrecompute", "Key", "MapCache", "Task", "map_caches"]

# Index of an image in its split, and whether the image is mirrored.
Key = tuple[int, bool]


class MapCache:
    """Cache of the maps of one kind and one network, below `<root>/<kind>`.

    Args:
        storage: Storage of the maps.
        root: URI of the folder above all maps; several runs may share it.
        network: Network that computes the maps; its layers before the maps no longer learn, and its context module is
            not used.
        kind: Kind of the maps: `features` (the maps before the head, float16; conv5_3 maps in the dilated family) or
            `scores` (float32).
        features: Cache of `features` maps from which scores are computed if convolutions are frozen; None: scores are
            computed from images.
        precision: Precision of the arithmetic, `float32` or `bfloat16`; maps of different precision do not mix.
    """

    def __init__(
        self,
        storage: Storage,
        root: str,
        network: Network,
        kind: StageInput,
        features: MapCache | None = None,
        precision: str = "float32",
    ) -> None:
        self._storage = storage
        self._network = network.without_context()
        self._kind = kind
        self._features = features
        self._above = root
        self._origin = f"{precision} {'' if features is None else 'from features'}".strip()

    @cached_property
    def _root(self) -> str:
        # Computed on first use, because the digest reads every weight: half a gigabyte at full width.
        return join(self._above, self._kind, _digest(self._network, self._kind, self._origin)[:16])

    @property
    def halo(self) -> int:
        """Number of cells by which a map exceeds its image's score map per axis: 0 for score maps."""
        return self._network.front_end.feature_halo if self._kind == "features" else 0

    @property
    def before_head(self) -> bool:
        """Whether the maps are those before the front end's head."""
        return self._kind == "features"

    def missing(self, images: Images, mirrors: Iterable[bool]) -> list[Key]:
        """Return the keys of the maps that are not stored yet.

        Args:
            images: Images of the split.
            mirrors: Values of the mirror flag that are needed.
        """
        # One listing instead of a request per map.
        there = {info.uri for info in self._storage.list(self._root)}
        wanted = [(index, mirror) for mirror in mirrors for index in range(len(images))]
        return [key for key in wanted if self._uri(images, *key) not in there]

    def fill(self, images: Images, keys: Sequence[Key], on_map: Callable[[], None] = lambda: None) -> None:
        """Compute maps and write them, and call `on_map` after each."""
        for index, mirror in keys:
            maps = self.compute(images, index, mirror)
            self._storage.write(self._uri(images, index, mirror), save({"maps": maps}))
            on_map()

    def load(self, images: Images, index: int, mirror: bool) -> Tensor:
        """Return the stored map of an image, (F, rows + halo, columns + halo), on the CPU.

        Raises:
            IncompleteRun: If the map has not been computed.
        """
        uri = self._uri(images, index, mirror)
        try:
            return load(self._storage.read(uri))["maps"]
        except ObjectMissing as error:
            raise IncompleteRun(f"the {self._kind} map {uri} is missing: submit the same command again") from error

    @torch.inference_mode()
    def compute(self, images: Images, index: int, mirror: bool) -> Tensor:
        """Compute the map of one reflected image, as large as its score map needs, and return it on the CPU.

        Args:
            images: Images of the split.
            index: Index of the image in the split.
            mirror: Whether to mirror the image left to right first.

        Returns:
            The map (F, rows + halo, columns + halo); float16 for maps before the head.
        """
        front_end = self._network.front_end
        weight = next(front_end.parameters())
        with evaluating(self._network):
            if self._features is not None:
                # (F, rows + halo, columns + halo) -> scores (C, rows, columns)
                maps = self._features.load(images, index, mirror)[None].to(weight)
                return front_end.head(maps)[0].cpu().contiguous()
            image, _ = images.pair(index)
            image = image[:, ::-1] if mirror else image
            if self._kind == "scores":
                return score_map(self._network, image).cpu().contiguous()
            # (H, W, 3) -> (1, 3, h, w), reflected if the border is; float16 halves the size of the stored maps.
            # As large as the family's score maps can be: upsampling is not part of the digest.
            spec = replace(self._network.spec, upsampling=front_end.upsampling or GRID)
            batch = network_input(Network(spec, front_end, None), image).whole()
            return front_end.features(batch)[0].half().cpu().contiguous()

    def _uri(self, images: Images, index: int, mirror: bool) -> str:
        pair = images.pairs[index]
        name = hashlib.sha256(f"{pair.image_uri} {pair.version}".encode()).hexdigest()[:24]
        return join(self._root, f"{name}-{int(mirror)}.safetensors")


def _digest(network: Network, kind: StageInput, origin: str) -> str:
    """Return the SHA-256 digest (hex) over all weights and settings that determine the maps.

    A missing working size, the default origin and the dilated family add nothing, so they leave the digest as it is
    without these settings.
    """
    parts = network.front_end.parts
    content = hashlib.sha256(repr(network.spec.mean_bgr).encode())
    names = parts["features"] if kind == "features" else [name for layers in parts.values() for name in layers]
    if network.spec.family != DILATED:
        content.update(repr((network.spec.family, sorted(network.spec.family_options.items()))).encode())
    if network.spec.resize is not None:
        content.update(repr(network.spec.resize).encode())
    if kind == "scores":
        # The upsampling decides how many cells an image has.
        upsampling = network.spec.upsampling
        content.update((upsampling.name or repr(upsampling)).encode())
    if origin != "float32":
        content.update(origin.encode())
    for name in names:
        for tensor in network.front_end.get_submodule(name).state_dict().values():
            content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


# One map to compute: split, index of the image in the split, and whether the image is mirrored.
Task = tuple[Literal["train", "val"], int, bool]


def map_caches(config: TrainConfig, storage: Storage, network: Network) -> dict[StageInput, MapCache]:
    """Return the map caches that a recipe uses, by kind, keyed by the current weights of `network`."""
    recipe = config.recipe
    root = config.maps or config.output
    caches = dict[StageInput, MapCache]()
    precision = precision_name("cuda" if config.gpus_per_worker else "cpu")
    if recipe.frozen_parts:
        caches["features"] = MapCache(storage, root, network, "features", precision=precision)
    if "context" in recipe.stages and recipe.stage_input("context") == "scores":
        caches["scores"] = MapCache(storage, root, network, "scores", caches.get("features"), precision)
    return caches


class FeaturePrecompute:
    """Computation of all maps of one kind for the images of a run.

    Args:
        config: Configuration of the run.
        kind: Kind of the maps, `features` (maps before the head) or `scores`.
        storage: Storage of images, weights and maps.
        device: Device that computes the maps; None: the CPU.
    """

    def __init__(
        self, config: TrainConfig, kind: StageInput, storage: Storage, device: torch.device | None = None
    ) -> None:
        self._config = config
        self._sources = Sources(config, storage)
        # Only the context stage uses score maps; the others serve every stage.
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


def _network(config: TrainConfig, kind: StageInput, storage: Storage) -> Network:
    """Return the network that computes the maps: the initial one, or the one after the last front-end stage."""
    before = [stage for stage in config.recipe.stages if stage in ("front_end", "fine_tune")]
    if kind == "features" or not before:
        return initial_network(config.recipe, storage)[0]
    return from_bytes(storage.read(join(config.output, "stages", f"{before[-1]}.safetensors")))
