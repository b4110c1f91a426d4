"""One shard, start to end: fetch, decode, predict, score, encode. Plain Python; one bad image is one error row."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from model.dense_prediction import predict
from model.errors import PredictionError
from model.geometry import MIN_WINDOW
from model.network import DilatedNetwork
from model.upsampling import LabelMap
from pipeline.data.images import decode_image
from pipeline.data.label_spaces import LabelSpace, label_space
from pipeline.data.labels import decode_label, encode_confidence, encode_mask
from pipeline.data.storage import Storage
from pipeline.errors import DecodeError, ObjectChanged, ObjectMissing, ProcessDied
from pipeline.results.schemas import predictions_schema
from pipeline.results.scores import Matrix, class_counts, mean_iou, pixel_accuracy
from pipeline.segmentation.config import SegmentConfig

__all__ = ["Segmenter", "ShardResult", "Surroundings"]

logger = logging.getLogger(__name__)
Row = Mapping[str, Any]
_THREADS = 2


@dataclass(frozen=True)
class ShardResult:
    """A shard's `predictions` table, and the confusion matrix of its labelled images."""

    table: pa.Table
    confusion: Matrix


class Surroundings:
    """What a segmenter tells whoever runs it, and hears from there. This one does nothing with it.

    Attributes:
        quarantined: image's position in the shard → stage; such an image is not touched.
        ahead: images fetched and decoded ahead of the network: enough to hide a slow GET, few enough to bound memory.
    """

    quarantined: Mapping[int, str] = {}
    ahead = 4

    def image(self, ok: bool) -> None:
        """An image is done."""

    def stage(self, position: int, name: str) -> None:
        """A stage of an image begins; stages of several images overlap, unless `ahead` is 0."""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[], None]]:
        """Around work that may not come back; what is yielded is called when a part of it is done."""
        yield lambda: None


@dataclass(frozen=True)
class _Loaded:
    uri: str
    image: NDArray[np.uint8]
    label: NDArray[np.uint8] | None
    seconds: float


class _ImageError(Exception):
    def __init__(self, stage: str, cause: Exception) -> None:
        super().__init__(str(cause))
        self.stage, self.cause = stage, cause


class Segmenter:
    """Holds the network of an actor and turns manifest rows into a `predictions` table.

    Args:
        network: in evaluation mode, on the device that predicts.
        config: of the run.
        run_id: for the rows.
        storage: where images and labels are read.
    """

    def __init__(self, network: DilatedNetwork, config: SegmentConfig, run_id: str, storage: Storage) -> None:
        self._network, self._config, self._run_id, self._storage = network, config, run_id, storage
        self._classes = network.spec.classes
        self._space: LabelSpace | None = label_space(config.label_space) if config.label_space else None
        self._schema = predictions_schema(config.confidence_maps)

    def segment(self, rows: Sequence[Row], around: Surroundings | None = None) -> ShardResult:
        """Segments the images of a shard, in order.

        Args:
            rows: of the manifest.
            around: told of every image and stage.

        Raises:
            StorageError: if storage does not do its work; never for one missing or replaced image.
        """
        around = around or Surroundings()
        confusion = np.zeros((len(self._classes), len(self._classes)), np.int64)
        done: list[dict[str, Any]] = []
        for position, (row, loading) in enumerate(self._load_ahead(rows, around)):
            head = {"run_id": self._run_id, "image_uri": row["image_uri"], "image_version": row["version"]}
            try:
                columns, counts = self._segment_one(loading, position, around)
                confusion += counts
                done.append({**head, "status": "ok", **columns})
            except _ImageError as error:
                logger.info("%s failed at %s: %s", row["image_uri"], error.stage, error)
                done.append({**head, "status": "error", **_error_columns(error)})
            around.image(done[-1]["status"] == "ok")
        return ShardResult(pa.Table.from_pylist(done, schema=self._schema), confusion)

    def _load_ahead(self, rows: Sequence[Row], around: Surroundings) -> Iterator[tuple[Row, Future[_Loaded]]]:
        """Yields rows in order with their image under way; a few later ones load meanwhile."""
        with ThreadPoolExecutor(_THREADS, "load") as pool:
            waiting: deque[tuple[Row, Future[_Loaded]]] = deque()
            try:
                for position, row in enumerate(rows):
                    waiting.append((row, pool.submit(self._load, row, position, around)))
                    if len(waiting) > around.ahead:
                        yield waiting.popleft()
                while waiting:
                    yield waiting.popleft()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, row: Row, position: int, around: Surroundings) -> _Loaded:
        if (stage := around.quarantined.get(position)) is not None:
            raise _ImageError(stage, ProcessDied(f"processes died or hung repeatedly in stage {stage}"))
        started, limit = time.perf_counter(), self._config.max_pixels
        around.stage(position, "fetch")
        data = _stage("fetch", lambda: self._fetch(row))
        around.stage(position, "decode")
        with around.step(f"decoding {row['image_uri']}"):
            image = _stage("decode", lambda: decode_image(data, max_pixels=limit))
        label = None
        if row["label_uri"]:
            around.stage(position, "label")
            label = _stage("label", lambda: self._label(row["label_uri"], image, around))
        return _Loaded(row["image_uri"], image, label, time.perf_counter() - started)

    def _fetch(self, row: Row) -> bytes:
        return self._storage.read(row["image_uri"], size=row["size"], version=row["version"])

    def _label(self, uri: str, image: NDArray[np.uint8], around: Surroundings) -> NDArray[np.uint8]:
        spec, data, limit = self._network.spec, self._storage.read(uri), self._config.max_pixels
        with around.step(f"decoding {uri}"):
            label = decode_label(data, len(spec.classes), spec.ignore_label, self._space, max_pixels=limit)
        if label.shape != image.shape[:2]:
            raise DecodeError(
                f"the label {uri} has {label.shape[0]}×{label.shape[1]} pixels (height×width), "
                f"the image {image.shape[0]}×{image.shape[1]}"
            )
        return label

    def _segment_one(
        self, loading: Future[_Loaded], position: int, around: Surroundings
    ) -> tuple[dict[str, Any], Matrix]:
        loaded = loading.result()
        started = time.perf_counter()
        around.stage(position, "predict")
        with around.step(f"predicting {loaded.uri}") as renew:
            prediction = _stage("predict", lambda: self._predict(loaded, renew))
        columns, counts = self._columns(prediction)
        columns["seconds"] = loaded.seconds + time.perf_counter() - started
        return columns, counts

    def _predict(self, loaded: _Loaded, on_window: Callable[[], None]) -> LabelMap:
        window = self._config.window
        while True:
            try:
                return predict(
                    self._network,
                    loaded.image,
                    max_window=window,
                    geometry=self._config.geometry,
                    confidence=self._config.confidence_maps,
                    target=loaded.label,
                    on_window=on_window,
                )
            except (MemoryError, RuntimeError) as error:
                # A smaller window gives the same labels in less memory; other runtime errors are not the image's.
                if not _out_of_memory(error) or self._config.geometry == "reference":
                    raise
                if window == MIN_WINDOW:
                    raise PredictionError(f"out of memory even with windows of {window} pixels") from error
                window = max(MIN_WINDOW, window // 2)
                logger.warning("out of memory, trying windows of %d pixels", window)

    def _columns(self, prediction: LabelMap) -> tuple[dict[str, Any], Matrix]:
        classes, counts = len(self._classes), prediction.confusion
        columns: dict[str, Any] = {
            "height": prediction.labels.shape[0],
            "width": prediction.labels.shape[1],
            "mask": {"bytes": encode_mask(prediction.labels, self._network.spec.palette), "path": None},
            "classes": class_counts(self._classes, prediction.class_pixels, counts),
            "pixel_accuracy": None if counts is None else pixel_accuracy(counts),
            "mean_iou": None if counts is None else mean_iou(counts),
            "mean_confidence": prediction.mean_confidence,
            "mean_entropy": prediction.mean_entropy,
        }
        if prediction.confidence is not None:
            columns["confidence"] = {"bytes": encode_confidence(prediction.confidence), "path": None}
        return columns, np.zeros((classes, classes), np.int64) if counts is None else counts


def _stage(name: str, work: Callable[[], Any]) -> Any:
    """Runs a step; what is one image's own fault becomes an error of that stage, all else passes through."""
    try:
        return work()
    except (DecodeError, PredictionError, ObjectMissing, ObjectChanged) as error:
        raise _ImageError(name, error) from error


def _error_columns(error: _ImageError) -> dict[str, str]:
    names: dict[type[Exception], str] = {ObjectMissing: "missing", ObjectChanged: "changed"}
    kind = names.get(type(error.cause), type(error.cause).__name__)
    return {"error_stage": error.stage, "error_type": kind, "error_message": str(error)}


def _out_of_memory(error: BaseException) -> bool:
    # Torch's CPU allocator has no exception of its own, only this text.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
