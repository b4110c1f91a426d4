"""Loading of an image: fetch, decode, network input and label of one manifest row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import PredictionError
from model.networks.network import Network
from model.prediction.dense_prediction import network_input
from model.prediction.streams import Stream
from model.prediction.window_input import WindowInput
from pipeline.data.images import decode_image
from pipeline.data.labels import decode_label
from pipeline.data.storage import Storage
from pipeline.errors import DecodeError, ObjectChanged, ObjectMissing, ProcessDied
from pipeline.segmentation.config import SegmentConfig, labels_of
from pipeline.segmentation.failures import out_of_memory
from pipeline.segmentation.supervision import ShardObserver

__all__ = ["ImageError", "Loaded", "Loader", "Row", "batch_by_shape", "image_stage"]

Row = Mapping[str, Any]


class ImageError(Exception):
    """Failure of one image, which becomes an error row and does not end the run.

    Args:
        stage: Stage in which the image failed, such as `decode`.
        cause: Exception that was raised there.
    """

    def __init__(self, stage: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.stage = stage
        self.cause = cause


@dataclass(frozen=True)
class Loaded:
    """Image that is ready for the network.

    Attributes:
        position: Position of the image in the shard, from 0.
        uri: URI of the image.
        size: Height and width in pixels.
        source: Network input, one per view; for `reference` geometry the (H, W, 3) image itself.
        label: (H, W) class ids; None for an image without a label.
        seconds: Seconds that loading took.
    """

    position: int
    uri: str
    size: tuple[int, int]
    source: NDArray[np.uint8] | tuple[WindowInput, ...]
    label: NDArray[np.uint8] | None
    seconds: float


class Loader:
    """Reader of the images and labels of a run.

    Args:
        network: Network for which the images are prepared.
        config: Configuration of the run.
        storage: Storage of images and labels.
        stream: Stream of the device in which images become network input.
    """

    def __init__(self, network: Network, config: SegmentConfig, storage: Storage, stream: Stream) -> None:
        self._network = network
        self._config = config
        self._storage = storage
        self._stream = stream
        self._views = config.views(network.spec.resize)
        self._space = labels_of(config, network.spec)

    def load(self, row: Row, position: int, observer: ShardObserver) -> Loaded:
        """Load an image and its label.

        Args:
            row: Row of the manifest.
            position: Position of the image in the shard, from 0.
            observer: Observer of every stage.

        Raises:
            ImageError: If the image or its label cannot be used, or the image is quarantined.
            StorageError: If storage fails.
        """
        if (stage := observer.quarantined.get(position)) is not None:
            raise ImageError(stage, ProcessDied(f"processes died or hung repeatedly in stage {stage}"))
        started = time.perf_counter()
        limit = self._config.max_pixels
        observer.stage(position, "fetch")
        data = image_stage("fetch", lambda: self._fetch(row))
        observer.stage(position, "decode")
        with observer.step(f"decoding {row['image_uri']}"):
            image = image_stage("decode", lambda: decode_image(data, max_pixels=limit))
        label = None
        if row["label_uri"]:
            observer.stage(position, "label")
            label = image_stage("label", lambda: self._label(row["label_uri"], image, observer))
        source = image_stage("predict", lambda: self._source(image))
        size = (image.shape[0], image.shape[1])
        return Loaded(position, row["image_uri"], size, source, label, time.perf_counter() - started)

    def _source(self, image: NDArray[np.uint8]) -> NDArray[np.uint8] | tuple[WindowInput, ...]:
        """Return the network input of a (H, W, 3) image, one per view; for `reference` geometry the image."""
        if self._config.geometry == "reference":
            return image
        try:
            return self._inputs(image, self._stream)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        # Without a stream, windows are cut when the network needs them; those may be smaller ones. The except block has
        # ended, so its traceback no longer keeps the input that did not fit.
        return self._inputs(image, None)

    def _inputs(self, image: NDArray[np.uint8], stream: Stream | None) -> tuple[WindowInput, ...]:
        window = self._config.window
        return tuple(network_input(self._network, view.of(image), window, stream) for view in self._views)

    def _fetch(self, row: Row) -> bytes:
        # Size and version come from the manifest: an object that was replaced later must not count as this image.
        return self._storage.read(row["image_uri"], size=row["size"], version=row["version"])

    def _label(self, uri: str, image: NDArray[np.uint8], observer: ShardObserver) -> NDArray[np.uint8]:
        """Return the (H, W) class ids of a label file.

        Raises:
            DecodeError: If the file cannot be decoded, or has another size than the image.
        """
        spec = self._network.spec
        data = self._storage.read(uri)
        limit = self._config.max_pixels
        with observer.step(f"decoding {uri}"):
            label = decode_label(data, len(spec.classes), spec.ignore_label, self._space, max_pixels=limit, name=uri)
        if label.shape != image.shape[:2]:
            raise DecodeError(
                f"the label {uri} has {label.shape[0]}×{label.shape[1]} pixels (height×width), "
                f"the image {image.shape[0]}×{image.shape[1]}"
            )
        return label


def image_stage(name: str, work: Callable[[], Any]) -> Any:
    """Return the result of `work`; an exception that concerns one image becomes an ImageError of stage `name`.

    All other exceptions, such as those of an unavailable storage, pass through.

    Raises:
        ImageError: If the image or label is missing, changed or not decodable, cannot be predicted, or needs more
            memory than there is.
    """
    try:
        return work()
    except (DecodeError, PredictionError, ObjectMissing, ObjectChanged) as error:
        raise ImageError(name, error) from error
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    # Raised outside the except block: as the cause, the error and its traceback would keep the image's memory in use.
    kind = PredictionError if name == "predict" else DecodeError
    raise ImageError(name, kind("out of memory"))


def batch_by_shape(loading: Iterable[Future[Loaded]], most: int) -> Iterator[list[Loaded] | ImageError]:
    """Group loaded images into network batches of consecutive images that have one size for the network.

    Images are awaited in their order, regardless of which is loaded first: equal rows give equal batches, and so equal
    bits of the results.

    Args:
        loading: Images in the order of the shard.
        most: Largest number of images in a batch.

    Yields:
        Batch of images, or the error of one image that failed. An image of several views, or of `reference` geometry,
        is a batch of its own.
    """
    batch: list[Loaded] = []
    for image in map(_outcome, loading):
        # A failed image or another size closes the open batch.
        if batch and (isinstance(image, ImageError) or _batch_size(image) != _batch_size(batch[0])):
            yield batch
            batch = []
        if isinstance(image, ImageError):
            yield image
            continue
        batch.append(image)
        if len(batch) == most or _batch_size(image) is None:
            yield batch
            batch = []
    if batch:
        yield batch


def _batch_size(image: Loaded) -> tuple[int, int] | None:
    """Return the size that the images of a batch share; None for an image that cannot share a batch."""
    if isinstance(image.source, tuple) and len(image.source) == 1:
        return image.source[0].batch_size
    return None


def _outcome(loading: Future[Loaded]) -> Loaded | ImageError:
    """Wait for an image; return its ImageError instead of raising it."""
    try:
        return loading.result()
    except ImageError as error:
        # Frames of the traceback hold the image, which would stay in memory until its row is written.
        return error.with_traceback(None)
