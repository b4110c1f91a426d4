"""Maps of whole images, computed once: conv5_3 maps under frozen convolutions, score maps under the context stage.

A map's name holds a digest of all weights before it and of the image's version, so it can never be stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from model.dense_prediction import score_map
from model.front_end import CONV_NAMES, HEAD_CELLS
from model.geometry import score_map_size
from model.network import DilatedNetwork
from model.window_input import WindowInput
from pipeline.data.storage import Storage, join
from pipeline.errors import IncompleteRun, ObjectMissing
from pipeline.training.recipe_schema import StageInput
from pipeline.training.sources import Images
from pipeline.training.stages import evaluating

__all__ = ["Key", "MapCache"]

# Number of an image in its split, and whether it is mirrored.
Key = tuple[int, bool]


class MapCache:
    """Maps of one kind and one network, below `<root>/<kind>`.

    Args:
        storage: where they lie.
        root: URI above all maps; runs may share it.
        network: whose layers before the maps do not learn any more; its context module plays no part.
        kind: `features` (conv5_3 maps, float16) or `scores` (float32).
        features: where scores can start from, if convolutions are frozen too.
        precision: of the arithmetic; maps of another one are other maps.
    """

    def __init__(
        self,
        storage: Storage,
        root: str,
        network: DilatedNetwork,
        kind: StageInput,
        features: MapCache | None = None,
        precision: str = "float32",
    ) -> None:
        self._storage, self._network, self._kind, self._features = storage, network.without_context(), kind, features
        self._above, self._origin = root, f"{precision} {'' if features is None else 'from features'}".strip()

    @cached_property
    def _root(self) -> str:
        # Only where it is asked for: a digest reads every weight, half a gigabyte at full width.
        return join(self._above, self._kind, _digest(self._network, self._kind, self._origin)[:16])

    @property
    def halo(self) -> int:
        """Cells by which a map is larger than its image's score map, in each direction."""
        return HEAD_CELLS if self._kind == "features" else 0

    def missing(self, images: Images, mirrors: Iterable[bool]) -> list[Key]:
        """Which maps are not there yet."""
        there = {info.uri for info in self._storage.list(self._root)}
        wanted = [(index, mirror) for mirror in mirrors for index in range(len(images))]
        return [key for key in wanted if self._uri(images, *key) not in there]

    def fill(self, images: Images, keys: Sequence[Key], on_map: Callable[[], None] = lambda: None) -> None:
        """Computes maps and writes them; calls `on_map` after each."""
        for index, mirror in keys:
            maps = self.compute(images, index, mirror)
            self._storage.write(self._uri(images, index, mirror), save({"maps": maps}))
            on_map()

    def load(self, images: Images, index: int, mirror: bool) -> Tensor:
        """(F, rows + halo, columns + halo).

        Raises:
            IncompleteRun: if the map has not been computed.
        """
        uri = self._uri(images, index, mirror)
        try:
            return load(self._storage.read(uri))["maps"]
        except ObjectMissing as error:
            raise IncompleteRun(f"the {self._kind} map {uri} is missing: submit the same command again") from error

    @torch.inference_mode()
    def compute(self, images: Images, index: int, mirror: bool) -> Tensor:
        """The map of one image, reflected: as large as its score map needs. On the CPU."""
        front_end = self._network.front_end
        weight = front_end.final.weight
        with evaluating(self._network):
            if self._features is not None:
                maps = self._features.load(images, index, mirror)[None].to(weight)
                return front_end.head(maps)[0].cpu().contiguous()
            image, _ = images.pair(index)
            image = image[:, ::-1] if mirror else image
            if self._kind == "scores":
                return score_map(self._network, image).cpu().contiguous()
            batch = _reflected(image, self._network.spec.mean_bgr, weight.device)
            return front_end.features(batch)[0].half().cpu().contiguous()

    def _uri(self, images: Images, index: int, mirror: bool) -> str:
        pair = images.pairs[index]
        name = hashlib.sha256(f"{pair.image_uri} {pair.version}".encode()).hexdigest()[:24]
        return join(self._root, f"{name}-{int(mirror)}.safetensors")


def _reflected(image: NDArray[np.uint8], mean_bgr: tuple[float, float, float], device: torch.device) -> Tensor:
    return WindowInput(image, score_map_size(*image.shape[:2]), mean_bgr, device).whole()


def _digest(network: DilatedNetwork, kind: StageInput, origin: str) -> str:
    content = hashlib.sha256(repr(network.spec.mean_bgr).encode())
    names = CONV_NAMES if kind == "features" else (*CONV_NAMES, "fc6", "fc7", "final")
    if network.spec.resize is not None:
        content.update(repr(network.spec.resize).encode())
    if kind == "scores":
        content.update(network.spec.upsampling.encode())  # decides how many cells an image has
    if origin != "float32":
        content.update(origin.encode())
    for name in names:
        for tensor in network.front_end.get_submodule(name).state_dict().values():
            content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
