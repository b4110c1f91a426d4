"""conv5_3 maps of whole images, computed once for recipes that keep the convolutions frozen.

A map's name holds a digest of the frozen weights and of the image's version, so it can never be stale.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from model.dense_prediction import preprocess
from model.front_end import CONV_NAMES, FrontEnd
from model.geometry import MARGIN, OUTPUT_STRIDE, reflect_indices, score_map_size
from pipeline.data.storage import Storage, join
from pipeline.training.dataset import LabelledImages

__all__ = ["FeatureCache"]

logger = logging.getLogger(__name__)


class FeatureCache:
    """Maps of one frozen front end, as float16 below `<output>/features`.

    Args:
        storage: where they lie.
        output: of the run.
        front_end: whose convolutions are frozen.
        mean_bgr: of the recipe.
    """

    def __init__(
        self, storage: Storage, output: str, front_end: FrontEnd, mean_bgr: tuple[float, float, float]
    ) -> None:
        self._storage, self._front_end, self._mean = storage, front_end, mean_bgr
        self._root = join(output, "features", _digest(front_end, mean_bgr)[:16])

    def fill(
        self,
        images: LabelledImages,
        mirrors: Iterable[bool],
        share: tuple[int, int],
        on_map: Callable[[int, int], None],
    ) -> None:
        """Computes the maps that are not there yet.

        Args:
            images: of a split.
            mirrors: which versions of each image.
            share: (rank, size): every size-th map, from rank on, is this worker's.
            on_map: called with (done, to do) after each map.
        """
        there = {info.uri for info in self._storage.list(self._root)}
        wanted = [(index, mirror) for mirror in mirrors for index in range(len(images))]
        # Dealt out first, filtered then: each worker lists at its own time, and sees more or less of the others' maps.
        mine = wanted[share[0] :: share[1]]
        missing = [key for key in mine if self._uri(images, *key) not in there]
        for done, (index, mirror) in enumerate(missing, start=1):
            image, _ = images.pair(index)
            maps = self.compute(image[:, ::-1] if mirror else image)
            self._storage.write(self._uri(images, index, mirror), save({"maps": maps}))
            on_map(done, len(missing))

    def load(self, images: LabelledImages, index: int, mirror: bool) -> Tensor:
        """(F, rows + 24, columns + 24) float16."""
        return load(self._storage.read(self._uri(images, index, mirror)))["maps"]

    @torch.inference_mode()
    def compute(self, image: NDArray[np.uint8]) -> Tensor:
        """Maps of the whole image, reflected: as many as its score map needs. Float16, on the CPU."""
        height, width = image.shape[:2]
        rows, columns = score_map_size(height, width)
        source_rows = reflect_indices(height, MARGIN, rows * OUTPUT_STRIDE + MARGIN - height)
        source_columns = reflect_indices(width, MARGIN, columns * OUTPUT_STRIDE + MARGIN - width)
        inputs = preprocess(image[np.ix_(source_rows, source_columns)], self._mean)
        weight = self._front_end.final.weight
        # Early layers, with few channels and many pixels, run up to twice as fast with channels last on a CPU.
        batch = inputs[None].to(weight.device).contiguous(memory_format=torch.channels_last)
        return self._front_end.features(batch)[0].half().cpu().contiguous()

    def _uri(self, images: LabelledImages, index: int, mirror: bool) -> str:
        pair = images.pairs[index]
        name = hashlib.sha256(f"{pair.image_uri} {pair.version}".encode()).hexdigest()[:24]
        return join(self._root, f"{name}-{int(mirror)}.safetensors")


def _digest(front_end: FrontEnd, mean_bgr: tuple[float, float, float]) -> str:
    content = hashlib.sha256(repr(mean_bgr).encode())
    for name in CONV_NAMES:
        for tensor in front_end.get_submodule(name).state_dict().values():
            content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
