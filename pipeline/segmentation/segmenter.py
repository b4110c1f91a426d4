"""Segmentation of one shard without Ray: fetch, decode, predict, score, encode. A bad image is one error row."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from model.errors import PredictionError
from model.networks.network import Network
from model.prediction.dense_prediction import label_map, predict, score_maps
from model.prediction.label_map import LabelMap
from model.prediction.labels_by_window import label_by_windows, needs_windows
from model.prediction.streams import PendingTensors, Streams
from model.prediction.views import PLAIN
from pipeline.concurrency import prefetch_map
from pipeline.data.labels import encode_confidence, encode_mask
from pipeline.data.storage import Storage
from pipeline.errors import ObjectChanged, ObjectMissing
from pipeline.results.schema.schemas import predictions_schema
from pipeline.results.statistics.scores import Matrix, class_counts, mean_iou, pixel_accuracy
from pipeline.segmentation.config import SEQUENTIAL, Concurrency, SegmentConfig
from pipeline.segmentation.failures import out_of_memory
from pipeline.segmentation.loading import ImageError, Loaded, Loader, Row, batch_by_shape, image_stage
from pipeline.segmentation.supervision import ShardObserver

__all__ = ["Segmenter", "ShardResult"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardResult:
    """Result of a shard.

    Attributes:
        table: Rows of `predictions`, in the order of the manifest.
        confusion: (C, C) pixels of the labeled images by target and predicted class.
    """

    table: pa.Table
    confusion: Matrix


@dataclass(frozen=True)
class _Scored:
    """Image after the network.

    Attributes:
        label: Function that computes the label map; it may run in any thread.
        seconds: Seconds that the image took so far, with its share of its batch.
    """

    label: Callable[[], LabelMap]
    seconds: float


class Segmenter:
    """Conversion of manifest rows into a `predictions` table with the network of an actor.

    Args:
        network: Network in evaluation mode, on the device that predicts.
        config: Configuration of the run.
        run_id: Value of the column `run_id`.
        storage: Storage of images and labels.
        streams: Streams of the device that predicts; None: new ones.
        overlap: Limits of the work in progress; None: those that suit the device.
    """

    def __init__(
        self,
        network: Network,
        config: SegmentConfig,
        run_id: str,
        storage: Storage,
        streams: Streams | None = None,
        overlap: Concurrency | None = None,
    ) -> None:
        device = next(network.parameters()).device
        self._network = network
        self._config = config
        self._run_id = run_id
        self._streams = streams or Streams.of(device)
        self._loader = Loader(network, config, storage, self._streams.inputs)
        self._views = config.views(network.spec.resize)
        self._classes = network.spec.classes
        self._schema = predictions_schema(config.confidence_maps)
        self._overlap = overlap or Concurrency.of(config, on_gpu=device.type == "cuda")
        self._turn = threading.Lock()

    def segment(self, rows: Sequence[Row], observer: ShardObserver | None = None) -> ShardResult:
        """Segment the images of a shard, in order.

        While the network runs on one image, later images are fetched and decoded, and earlier ones are labeled and
        encoded. Several threads may call this method at once; the network processes one shard at a time.

        Args:
            rows: Rows of the manifest.
            observer: Observer of every image and stage; None: no observer.

        Raises:
            StorageError: If storage fails; never for a single missing or replaced image.
        """
        observer = observer or ShardObserver()
        overlap = self._overlap if observer.overlapping else SEQUENTIAL
        confusion = np.zeros((len(self._classes), len(self._classes)), np.int64)
        done: list[dict[str, Any]] = []
        # Three stages overlap: `_scored` loads in threads and predicts in this thread, `_finish` runs in threads.
        scored = self._scored(rows, observer, overlap)
        finish = partial(self._finish, observer=observer)
        with contextlib.closing(scored):
            for (row, _), finishing in prefetch_map(
                "finish", finish, scored, count=overlap.ahead, threads=overlap.threads
            ):
                columns, counts = finishing.result()
                confusion += counts
                done.append({**self._head(row), **columns})
                observer.image(columns["status"] == "ok")
        return ShardResult(pa.Table.from_pylist(done, schema=self._schema), confusion)

    def _head(self, row: Row) -> dict[str, Any]:
        """Return the columns that do not depend on the outcome."""
        return {"run_id": self._run_id, "image_uri": row["image_uri"], "image_version": row["version"]}

    def _scored(
        self, rows: Sequence[Row], observer: ShardObserver, overlap: Concurrency
    ) -> Generator[tuple[Row, _Scored | ImageError]]:
        """Yield each row with its image after the network, in order; later images load meanwhile."""

        def load(item: tuple[int, Row]) -> Loaded:
            return self._loader.load(item[1], item[0], observer)

        loads = prefetch_map("load", load, enumerate(rows), count=overlap.ahead, threads=overlap.threads)
        with contextlib.closing(loads), contextlib.ExitStack() as turn:
            remaining = iter(rows)
            batches = batch_by_shape((loading for _, loading in loads), overlap.batch)
            for number, batch in enumerate(batches):
                if number == 0:
                    # The lock is taken only now, so that the first batch loads while the network still predicts the
                    # shard before this one. It is held until the shard's last batch.
                    turn.enter_context(self._turn)
                scored = [batch] if isinstance(batch, ImageError) else self._score(batch, observer)
                # `remaining` comes last: `zip` must not take a row before it finds that the images are used up.
                for image, row in zip(scored, remaining, strict=False):
                    yield row, image

    def _score(self, batch: Sequence[Loaded], observer: ShardObserver) -> Sequence[_Scored | ImageError]:
        """Run the network on a batch; return each image's scores, or the error of the batch for each image."""
        started = time.perf_counter()
        more = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
        for image in batch:
            observer.stage(image.position, "predict")
        with observer.step(f"predicting {batch[0].uri}{more}") as renew:
            outcomes = self._predict_within_memory(batch, renew)
        share = (time.perf_counter() - started) / len(batch)
        return [
            outcome if isinstance(outcome, ImageError) else _Scored(outcome, image.seconds + share)
            for outcome, image in zip(outcomes, batch, strict=True)
        ]

    def _finish(self, item: tuple[Row, _Scored | ImageError], observer: ShardObserver) -> tuple[dict[str, Any], Matrix]:
        """Label and encode an image; return its columns and its (C, C) confusion matrix, zeros without a label."""
        row, scored = item
        if isinstance(scored, ImageError):
            return self._failed(row, scored)
        started = time.perf_counter()
        try:
            # On a GPU, this call waits until the network has computed the scores.
            with observer.step(f"labelling {row['image_uri']}"):
                columns, counts = image_stage("predict", lambda: self._columns(scored.label()))
        except ImageError as error:
            return self._failed(row, error)
        return {"status": "ok", **columns, "seconds": scored.seconds + time.perf_counter() - started}, counts

    def _failed(self, row: Row, error: ImageError) -> tuple[dict[str, Any], Matrix]:
        """Return the columns of a failed image, and zeros for its confusion matrix."""
        logger.info("%s failed at %s: %s", row["image_uri"], error.stage, error)
        return {"status": "error", **_error_columns(error)}, self._no_counts()

    def _no_counts(self) -> Matrix:
        return np.zeros((len(self._classes), len(self._classes)), np.int64)

    def _predict_within_memory(
        self, batch: Sequence[Loaded], on_window: Callable[[], None]
    ) -> list[Callable[[], LabelMap] | ImageError]:
        """Run the network on a batch; out of memory, try again with less at a time.

        Returns:
            For each image a function that computes its label map in any thread, or the error of the image.
        """
        window = self._config.window
        while True:
            try:
                return [*self._predict(batch, window, on_window)]
            except PredictionError as error:
                return [ImageError("predict", error.with_traceback(None)) for _ in batch]
            except (MemoryError, RuntimeError) as error:
                # Other runtime errors are no fault of the images.
                if not out_of_memory(error):
                    raise
            # The next attempt starts after the except block: until then, the traceback keeps all tensors of the failed
            # one alive. First fewer images, then smaller windows, since both need less memory.
            if len(batch) > 1:
                logger.warning("out of memory, trying %d images one by one", len(batch))
                return [outcome for image in batch for outcome in self._predict_within_memory([image], on_window)]
            footprint = self._network.front_end.footprint
            # Windows that are blended decide labels, which must not depend on memory.
            smallest = footprint.min_window if footprint.overlap is None else window
            if window == smallest or self._config.geometry == "reference":
                tried = "" if self._config.geometry == "reference" else f" even with windows of {window} pixels"
                return [ImageError("predict", PredictionError(f"out of memory{tried}"))]
            window = max(smallest, window // 2)
            logger.warning("out of memory, trying windows of %d pixels", window)

    def _predict(
        self, items: Sequence[Loaded], window: int, on_window: Callable[[], None]
    ) -> list[Callable[[], LabelMap]]:
        """Run the network on a batch; return a function for each image that computes its label map in any thread.

        Args:
            items: Images whose score maps have one size.
            window: Longest side of a front-end window, pixels, margin included; `image` geometry only.
            on_window: Callback after each window.
        """
        inputs = [item.source for item in items if isinstance(item.source, tuple)]
        # Images of `reference` geometry have no network input: each is a batch of its own, and is labeled here.
        if not inputs:
            (item,) = items
            result = predict(
                self._network,
                np.asarray(item.source),
                geometry="reference",
                confidence=self._config.confidence_maps,
                target=item.label,
                on_window=on_window,
            )
            return [lambda: result]
        stream = self._streams.network
        if self._views == PLAIN and needs_windows(self._network, inputs[0][0].cells):
            with stream.use():
                return [partial(lambda done: done, self._by_windows(item, window, on_window)) for item in items]
        with stream.use():
            # Inputs by image and view -> by view: one view of all images is one batch of the network.
            of_views = [
                score_maps(self._network, sources, max_window=window, on_window=on_window).unbind()
                for sources in zip(*inputs, strict=True)
            ]
            # Scores by view and image -> by image: each image is labeled on its own, in another stream.
            of_images = [stream.record(scores) for scores in zip(*of_views, strict=True)]
        return [partial(self._label, item, scores) for item, scores in zip(items, of_images, strict=True)]

    def _by_windows(self, item: Loaded, window: int, on_window: Callable[[], None]) -> LabelMap:
        """Return the label map of an image whose score map would be too large to be kept."""
        assert isinstance(item.source, tuple)
        return label_by_windows(
            self._network,
            item.source[0],
            max_window=window,
            confidence=self._config.confidence_maps,
            target=item.label,
            on_window=on_window,
        )

    def _label(self, item: Loaded, scores: PendingTensors) -> LabelMap:
        """Return the label map of an image, averaged over its views, from one score map per view."""
        with self._streams.labels.use():
            return label_map(
                self._network.spec,
                scores.wait(),
                item.size,
                views=self._views,
                confidence=self._config.confidence_maps,
                target=item.label,
            )

    def _columns(self, prediction: LabelMap) -> tuple[dict[str, Any], Matrix]:
        """Return the columns of a segmented image and its (C, C) confusion matrix, zeros without a label."""
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


def _error_columns(error: ImageError) -> dict[str, str]:
    """Return the columns of a failed image: stage, type and message of its error."""
    names: dict[type[Exception], str] = {ObjectMissing: "missing", ObjectChanged: "changed"}
    kind = names.get(type(error.cause), type(error.cause).__name__)
    return {"error_stage": error.stage, "error_type": kind, "error_message": str(error)}
