"""Reader of the images and labels that a run was made from, as far as they still exist."""

from __future__ import annotations

import logging
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.data.images import LARGEST_MAX_PIXELS, decode_image
from pipeline.data.labels import decode_label
from pipeline.data.storage import join
from pipeline.errors import DecodeError, ObjectChanged, ObjectMissing, PipelineError
from pipeline.results.schema.encoding import part_order
from pipeline.results.tables import Run

__all__ = ["Sources"]

logger = logging.getLogger(__name__)


class Sources:
    """Reader of a run's inputs by URI; an input that cannot be read anymore is None, and a warning is logged."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._storage = run.storage
        self._classes = len(run.classes)
        self._ignore_label = int(run.success["ignore_label"])
        self._space = run.label_space()

    @cached_property
    def manifest(self) -> pa.Table:
        """Return the rows of the manifest, in order; the table is read on first use and then kept."""
        uris = (info.uri for info in self._storage.list(join(self._run.output, "manifest/")))
        parts = sorted(uris, key=part_order)
        tables = [pq.read_table(pa.BufferReader(self._storage.read(uri))) for uri in parts if uri.endswith(".parquet")]
        # Files of version 0.2.0 and older lack `label_version`; a later version may have continued the run.
        return pa.concat_tables(tables, promote_options="default")

    @cached_property
    def _labels(self) -> dict[str, str | None]:
        uris = self.manifest["image_uri"].to_pylist()
        return dict(zip(uris, self.manifest["label_uri"].to_pylist(), strict=True))

    def image(self, image_uri: str) -> NDArray[np.uint8] | None:
        """Return an image as (H, W, 3) uint8 RGB; None if it cannot be read or decoded anymore."""
        try:
            return decode_image(self._storage.read(image_uri), max_pixels=LARGEST_MAX_PIXELS)
        except PipelineError as error:
            logger.warning("cannot read %s anymore: %s", image_uri, error)
            return None

    def has_label(self, image_uri: str) -> bool:
        """Return whether the manifest pairs the image with a label."""
        return self._labels.get(image_uri) is not None

    def label(self, image_uri: str) -> NDArray[np.uint8] | None:
        """Return an image's label as (H, W) uint8 class ids; None if there is none or it cannot be read anymore."""
        return self.read_label(self._labels.get(image_uri))

    def read_label(self, label_uri: str | None) -> NDArray[np.uint8] | None:
        """Return the label at a URI as (H, W) uint8 class ids, without reading the manifest.

        Args:
            label_uri: URI of the label; None for an image without a label.

        Returns:
            (H, W) uint8 class ids; None if `label_uri` is None, or the label is gone, was replaced, or is damaged.

        Raises:
            StorageError: If storage does not answer or refuses access, which is no property of this label.
        """
        if label_uri is None:
            return None
        try:
            data = self._storage.read(label_uri)
            # The run may have had a higher limit than the default; the label has the size of an image that it accepted.
            limit = LARGEST_MAX_PIXELS
            return decode_label(data, self._classes, self._ignore_label, self._space, max_pixels=limit)
        except (ObjectMissing, ObjectChanged, DecodeError) as error:
            logger.warning("cannot read %s anymore: %s", label_uri, error)
            return None
