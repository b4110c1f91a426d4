"""Reader of the images and labels that a run was made from, as far as they still exist."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from pipeline.data.images import LARGEST_MAX_PIXELS, decode_image
from pipeline.data.labels import decode_label
from pipeline.errors import DecodeError, ObjectChanged, ObjectMissing, PipelineError
from pipeline.results.tables import Run

__all__ = ["Sources"]

logger = logging.getLogger(__name__)


class Sources:
    """Reader of a run's inputs by URI; an input that cannot be read anymore is None, and a warning is logged."""

    def __init__(self, run: Run) -> None:
        self._storage = run.storage
        self._classes = len(run.classes)
        self._ignore_label = int(run.success["ignore_label"])
        self._space = run.label_space()

    def image(self, image_uri: str) -> NDArray[np.uint8] | None:
        """Return an image as (H, W, 3) uint8 RGB; None if it cannot be read or decoded anymore."""
        try:
            return decode_image(self._storage.read(image_uri), max_pixels=LARGEST_MAX_PIXELS)
        except PipelineError as error:
            logger.warning("cannot read %s anymore: %s", image_uri, error)
            return None

    def read_label(self, label_uri: str | None) -> NDArray[np.uint8] | None:
        """Return the label at a URI as (H, W) uint8 class ids.

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
