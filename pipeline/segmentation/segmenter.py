"""One shard, start to end: fetch, decode, predict, score, encode. Plain Python; one bad image is one error row."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.dense_prediction import label_map, network_input, predict, score_map
from model.errors import PredictionError
from model.geometry import MIN_WINDOW
from model.network import DilatedNetwork
from model.upsampling import LabelMap
from model.window_input import WindowInput
from pipeline.ahead import ahead
from pipeline.data.images import decode_image
from pipeline.data.label_spaces import LabelSpace, label_space
from pipeline.data.labels import decode_label, encode_confidence, encode_mask
from pipeline.data.storage import Storage
from pipeline.errors import DecodeError, ObjectChanged, ObjectMissing, ProcessDied
from pipeline.results.schemas import predictions_schema
from pipeline.results.scores import Matrix, class_counts, mean_iou, pixel_accuracy
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.surroundings import Surroundings

__all__ = ["Segmenter", "ShardResult"]

logger = logging.getLogger(__name__)
Row = Mapping[str, Any]
_THREADS = 2


@dataclass(frozen=True)
class ShardResult:
    """A shard's `predictions` table, and the confusion matrix of its labelled images."""

    table: pa.Table
    confusion: Matrix


@dataclass(frozen=True)
class _Loaded:
    uri: str
    source: NDArray[np.uint8] | WindowInput
    label: NDArray[np.uint8] | None
    seconds: float


@dataclass(frozen=True)
class _Scored:
    """An image after the network: what labels it, and the seconds it took so far."""

    label: Callable[[], LabelMap]
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
        self._turn = threading.Lock()

    def segment(self, rows: Sequence[Row], around: Surroundings | None = None) -> ShardResult:
        """Segments the images of a shard, in order.

        While the network works on one image, later ones are fetched and decoded and earlier ones labelled and encoded.
        Several threads may call this at once; the network serves one shard at a time.

        Args:
            rows: of the manifest.
            around: told of every image and stage.

        Raises:
            StorageError: if storage does not do its work; never for one missing or replaced image.
        """
        around = around or Surroundings()
        confusion = np.zeros((len(self._classes), len(self._classes)), np.int64)
        done: list[dict[str, Any]] = []
        scored = self._scored(rows, around)
        with contextlib.closing(scored):
            for (row, _), finishing in ahead("finish", self._finish, scored, count=around.ahead, threads=_THREADS):
                columns, counts = finishing.result()
                confusion += counts
                done.append({**self._head(row), **columns})
                around.image(columns["status"] == "ok")
        return ShardResult(pa.Table.from_pylist(done, schema=self._schema), confusion)

    def _head(self, row: Row) -> dict[str, Any]:
        return {"run_id": self._run_id, "image_uri": row["image_uri"], "image_version": row["version"]}

    def _scored(self, rows: Sequence[Row], around: Surroundings) -> Generator[tuple[Row, _Scored | _ImageError]]:
        """Each row and its image after the network, in order; a few later images load meanwhile."""

        def load(item: tuple[int, Row]) -> _Loaded:
            return self._load(item[1], item[0], around)

        loads = ahead("load", load, enumerate(rows), count=around.ahead, threads=_THREADS)
        with contextlib.closing(loads), contextlib.ExitStack() as turn:
            for number, ((position, row), loading) in enumerate(loads):
                if number == 0:
                    # Not before the first images load: they load while the shard before this one is being predicted.
                    turn.enter_context(self._turn)
                try:
                    yield row, self._score(loading.result(), position, around)
                except _ImageError as error:
                    yield row, error

    def _score(self, loaded: _Loaded, position: int, around: Surroundings) -> _Scored:
        started = time.perf_counter()
        around.stage(position, "predict")
        with around.step(f"predicting {loaded.uri}") as renew:
            label = _stage("predict", lambda: self._predict(loaded, renew))
        return _Scored(label, loaded.seconds + time.perf_counter() - started)

    def _finish(self, item: tuple[Row, _Scored | _ImageError]) -> tuple[dict[str, Any], Matrix]:
        """An image's columns, and its confusion matrix, zeros without a label."""
        row, scored = item
        started = time.perf_counter()
        try:
            if isinstance(scored, _ImageError):
                raise scored
            columns, counts = self._columns(_stage("predict", scored.label))
        except _ImageError as error:
            logger.info("%s failed at %s: %s", row["image_uri"], error.stage, error)
            return {"status": "error", **_error_columns(error)}, self._no_counts()
        return {"status": "ok", **columns, "seconds": scored.seconds + time.perf_counter() - started}, counts

    def _no_counts(self) -> Matrix:
        return np.zeros((len(self._classes), len(self._classes)), np.int64)

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
        reference = self._config.geometry == "reference"
        source = image if reference else network_input(self._network, image, self._config.window)
        return _Loaded(row["image_uri"], source, label, time.perf_counter() - started)

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

    def _predict(self, loaded: _Loaded, on_window: Callable[[], None]) -> Callable[[], LabelMap]:
        """Runs the network; what is returned is the rest, for another thread."""
        network, source, target = self._network, loaded.source, loaded.label
        confidence = self._config.confidence_maps
        if not isinstance(source, WindowInput):
            result = predict(
                network, source, geometry="reference", confidence=confidence, target=target, on_window=on_window
            )
            return lambda: result
        scores = self._scores(source, on_window)
        return lambda: label_map(network.spec, scores, source.size, confidence=confidence, target=target)

    def _scores(self, source: WindowInput, on_window: Callable[[], None]) -> Tensor:
        window = self._config.window
        while True:
            try:
                return score_map(self._network, source, max_window=window, on_window=on_window)
            except (MemoryError, RuntimeError) as error:
                # A smaller window gives the same labels in less memory; other runtime errors are not the image's.
                if not _out_of_memory(error):
                    raise
                if window == MIN_WINDOW:
                    raise PredictionError(f"out of memory even with windows of {window} pixels") from error
                window = max(MIN_WINDOW, window // 2)
                logger.warning("out of memory, trying windows of %d pixels", window)

    def _columns(self, prediction: LabelMap) -> tuple[dict[str, Any], Matrix]:
        counts = prediction.confusion
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
        return columns, self._no_counts() if counts is None else counts


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
