"""Labelled images of a split: `<data>/<split>/images` and `<data>/<split>/labels`, paired by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.images import decode_image
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.labels import decode_label
from pipeline.data.manifest import build_manifest
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, DecodeError, ObjectMissing

__all__ = ["LabelledImage", "LabelledImages"]


@dataclass(frozen=True)
class LabelledImage:
    """One pair of the manifest."""

    image_uri: str
    label_uri: str
    version: str | None


class LabelledImages:
    """A frozen, sorted list of pairs, loaded one at a time.

    Raises:
        ConfigError: if the split is empty or an image has no label.
    """

    def __init__(self, storage: Storage, data: str, split: str, space: LabelSpace) -> None:
        self._storage, self._space = storage, space
        images, labels = join(data, split, "images"), join(data, split, "labels")
        rows = build_manifest(storage, images, labels).to_pylist()
        if not rows:
            raise ConfigError(f"{images} holds no image: --data needs train and val, each with images and labels")
        bare = [row["image_uri"] for row in rows if row["label_uri"] is None]
        if bare:
            raise ConfigError(f"{len(bare)} of {len(rows)} images have no label in {labels}, first {bare[0]}")
        self.pairs = [LabelledImage(row["image_uri"], row["label_uri"], row["version"]) for row in rows]

    def __len__(self) -> int:
        return len(self.pairs)

    def pair(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Image and label.

        Raises:
            ConfigError: if one cannot be decoded, or their sizes differ.
        """
        image, label = self.image(index), self.label(index)
        if image.shape[:2] != label.shape:
            raise ConfigError(
                f"{self.pairs[index].label_uri} has {label.shape[0]}×{label.shape[1]} pixels (height×width), its image "
                f"{image.shape[0]}×{image.shape[1]}"
            )
        return image, label

    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB.

        Raises:
            ConfigError: if it cannot be decoded: training data are the user's own, and every one counts.
        """
        return self._load(self.pairs[index].image_uri, decode_image)

    def label(self, index: int) -> NDArray[np.uint8]:
        """(H, W) uint8 class ids.

        Raises:
            ConfigError: if it cannot be decoded, or holds other classes than the recipe's.
        """
        space = self._space
        return self._load(
            self.pairs[index].label_uri,
            lambda data: decode_label(data, len(space.classes), space.ignore_label, space),
        )

    def _load(self, uri: str, decode):  # type: ignore[no-untyped-def]
        try:
            return decode(self._storage.read(uri))
        except (DecodeError, ObjectMissing) as error:
            raise ConfigError(f"{uri} cannot be trained on: {error}") from error
