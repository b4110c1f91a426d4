"""From a manifest row to what the network starts from: fetch, decode, window, label."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.dense_prediction import network_input
from model.errors import PredictionError
from model.network import DilatedNetwork
from model.streams import Stream
from model.window_input import WindowInput
from pipeline.data.images import decode_image
from pipeline.data.labels import decode_label
from pipeline.data.storage import Storage
from pipeline.errors import DecodeError, ObjectChanged, ObjectMissing, ProcessDied
from pipeline.segmentation.config import SegmentConfig, labels_of
from pipeline.segmentation.surroundings import Surroundings

__all__ = ["ImageError", "Loaded", "Loader", "Row", "image_stage", "neighbours"]

Row = Mapping[str, Any]


class ImageError(Exception):
    """One image's own fault: it becomes an error row, and no more than that."""

    def __init__(self, stage: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.stage, self.cause = stage, cause


@dataclass(frozen=True)
class Loaded:
    """An image before the network.

    Attributes:
        position: in the shard.
        uri: of the image.
        size: its height and width, pixels.
        source: what the network starts from, one input per view; the image itself for `reference` geometry.
        label: (H, W) class ids.
        seconds: that it took so far.
    """

    position: int
    uri: str
    size: tuple[int, int]
    source: NDArray[np.uint8] | tuple[WindowInput, ...]
    label: NDArray[np.uint8] | None
    seconds: float


class Loader:
    """Reads images and labels of a run.

    Args:
        network: that they are for.
        config: of the run.
        storage: where they are read.
        stream: of the device, in which images become what the network takes.
    """

    def __init__(self, network: DilatedNetwork, config: SegmentConfig, storage: Storage, stream: Stream) -> None:
        self._network, self._config, self._storage, self._stream = network, config, storage, stream
        self._views = config.views(network.spec.resize)
        self._space = labels_of(config, network.spec)

    def load(self, row: Row, position: int, around: Surroundings) -> Loaded:
        """An image and its label.

        Args:
            row: of the manifest.
            position: in the shard.
            around: told of every stage.

        Raises:
            ImageError: if the image or its label cannot be used, or is quarantined.
            StorageError: if storage does not do its work.
        """
        if (stage := around.quarantined.get(position)) is not None:
            raise ImageError(stage, ProcessDied(f"processes died or hung repeatedly in stage {stage}"))
        started, limit = time.perf_counter(), self._config.max_pixels
        around.stage(position, "fetch")
        data = image_stage("fetch", lambda: self._fetch(row))
        around.stage(position, "decode")
        with around.step(f"decoding {row['image_uri']}"):
            image = image_stage("decode", lambda: decode_image(data, max_pixels=limit))
        label = None
        if row["label_uri"]:
            around.stage(position, "label")
            label = image_stage("label", lambda: self._label(row["label_uri"], image, around))
        size = (image.shape[0], image.shape[1])
        return Loaded(position, row["image_uri"], size, self._source(image), label, time.perf_counter() - started)

    def _source(self, image: NDArray[np.uint8]) -> NDArray[np.uint8] | tuple[WindowInput, ...]:
        if self._config.geometry == "reference":
            return image
        window, stream = self._config.window, self._stream
        return tuple(network_input(self._network, view.of(image), window, stream) for view in self._views)

    def _fetch(self, row: Row) -> bytes:
        return self._storage.read(row["image_uri"], size=row["size"], version=row["version"])

    def _label(self, uri: str, image: NDArray[np.uint8], around: Surroundings) -> NDArray[np.uint8]:
        spec, data, limit = self._network.spec, self._storage.read(uri), self._config.max_pixels
        with around.step(f"decoding {uri}"):
            label = decode_label(data, len(spec.classes), spec.ignore_label, self._space, max_pixels=limit, name=uri)
        if label.shape != image.shape[:2]:
            raise DecodeError(
                f"the label {uri} has {label.shape[0]}×{label.shape[1]} pixels (height×width), "
                f"the image {image.shape[0]}×{image.shape[1]}"
            )
        return label


def image_stage(name: str, work: Callable[[], Any]) -> Any:
    """Runs a step; what is one image's own fault becomes an error of that stage, all else passes through.

    Raises:
        ImageError: if it fails for such a reason.
    """
    try:
        return work()
    except (DecodeError, PredictionError, ObjectMissing, ObjectChanged) as error:
        raise ImageError(name, error) from error


def neighbours(loading: Iterable[Future[Loaded]], most: int) -> Iterator[list[Loaded] | ImageError]:
    """Images as the network takes them: at most so many whose score maps have one size.

    What failed stands alone, and so does an image of several views.

    Awaits each in order, whatever is done first: the same rows give the same batches, and so the same bits.
    """
    batch: list[Loaded] = []
    for image in map(_outcome, loading):
        if batch and (isinstance(image, ImageError) or _cells(image) != _cells(batch[0])):
            yield batch
            batch = []
        if isinstance(image, ImageError):
            yield image
            continue
        batch.append(image)
        if len(batch) == most or _cells(image) is None:
            yield batch
            batch = []
    if batch:
        yield batch


def _cells(image: Loaded) -> tuple[int, int] | None:
    if isinstance(image.source, tuple) and len(image.source) == 1:
        return image.source[0].cells
    return None


def _outcome(loading: Future[Loaded]) -> Loaded | ImageError:
    try:
        return loading.result()
    except ImageError as error:
        return error
