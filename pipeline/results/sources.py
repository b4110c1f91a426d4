"""The images and labels that a run was made from, where they can still be read."""

from __future__ import annotations

import logging
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.data.images import decode_image
from pipeline.data.labels import decode_label
from pipeline.data.storage import join
from pipeline.errors import PipelineError
from pipeline.results.tables import Run

__all__ = ["Sources"]

logger = logging.getLogger(__name__)


class Sources:
    """Reads inputs of a run by their URI; what cannot be read any more is None."""

    def __init__(self, run: Run) -> None:
        self._run, self._storage = run, run.storage
        self._classes, self._ignore_label = len(run.classes), int(run.success["ignore_label"])
        self._space = run.label_space()

    @cached_property
    def manifest(self) -> pa.Table:
        """image_uri, label_uri, size and version of every input, in order; read on first use, and kept."""
        parts = sorted(info.uri for info in self._storage.list(join(self._run.output, "manifest/")))
        return pa.concat_tables(
            [pq.read_table(pa.BufferReader(self._storage.read(uri))) for uri in parts if uri.endswith(".parquet")]
        )

    @cached_property
    def _labels(self) -> dict[str, str | None]:
        uris = self.manifest["image_uri"].to_pylist()
        return dict(zip(uris, self.manifest["label_uri"].to_pylist(), strict=True))

    def image(self, image_uri: str) -> NDArray[np.uint8] | None:
        """(H, W, 3) uint8 RGB."""
        try:
            return decode_image(self._storage.read(image_uri))
        except PipelineError as error:
            logger.warning("cannot read %s any more: %s", image_uri, error)
            return None

    def has_label(self, image_uri: str) -> bool:
        """Whether the manifest pairs the image with a label."""
        return self._labels.get(image_uri) is not None

    def label(self, image_uri: str) -> NDArray[np.uint8] | None:
        """(H, W) uint8 class ids; None also without a label."""
        return self.read_label(self._labels.get(image_uri))

    def read_label(self, label_uri: str | None) -> NDArray[np.uint8] | None:
        """The same by the label's own URI, for which the manifest is not read."""
        if label_uri is None:
            return None
        try:
            data = self._storage.read(label_uri)
            return decode_label(data, self._classes, self._ignore_label, self._space)
        except PipelineError as error:
            logger.warning("cannot read %s any more: %s", label_uri, error)
            return None
