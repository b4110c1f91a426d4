"""Checks of the inputs of a run before any work: images exist, labels pair with them and have the network's classes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

from model.networks.network import NetworkSpec
from pipeline.data.filesystems import normalise
from pipeline.data.labels import decode_label
from pipeline.data.manifest import IMAGE_SUFFIXES
from pipeline.data.manifest_table import Manifest
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, DecodeError, ObjectMissing, UnknownClasses
from pipeline.segmentation.config import SegmentConfig, labels_of

__all__ = ["check_inputs"]

logger = logging.getLogger(__name__)
# Labels that are decoded before the run starts.
_LOOKED_AT = 4
# Images without a label that a message names.
_MOST_NAMED = 3


def check_inputs(config: SegmentConfig, spec: NetworkSpec, manifest: Manifest, storage: Storage) -> None:
    """Refuse inputs that a mistyped option would give, and log how many images have no label.

    Args:
        config: Configuration of the submission.
        spec: Description of the network (classes, palette, …).
        manifest: Inputs of the run.
        storage: Storage of the labels.

    Raises:
        ConfigError: If there is no image (without `allow_empty`, `since` or a limit of 0), if no label pairs with an
            image (without `since`: new images may wait for their labels), or if the first labels have other classes
            than the network.
    """
    if not manifest.num_rows:
        if not config.allow_empty and config.since is None and config.limit != 0:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ConfigError(
                f"no image below {config.images}: images end in {suffixes}; check --images, or add --allow-empty to "
                "commit a run without images"
            )
        return
    if config.labels is not None:
        _check_pairs(config.images, config.labels, manifest, refuse=config.since is None)
    _check_classes(config, spec, manifest, storage)


def _check_pairs(images: str, labels: str, manifest: Manifest, *, refuse: bool) -> None:
    """Raise ConfigError if no image has a label and `refuse` is set; otherwise log how many images have none."""
    missing = sum(table["label_uri"].null_count for table in manifest.tables())
    if not missing:
        return
    named = list(itertools.islice(_unlabelled(manifest), _MOST_NAMED))
    if refuse and missing == manifest.num_rows:
        root = normalise(images).rstrip("/")
        relative = named[0].removeprefix(f"{root}/") if named[0].startswith(f"{root}/") else named[0].rpartition("/")[2]
        wanted = join(normalise(labels), relative.rpartition(".")[0])
        raise ConfigError(
            f"no label below {labels} pairs with an image below {images}: for {named[0]}, a file {wanted} with the "
            "suffix of an image was looked for (also with _mask, _label, _seg or _L before the suffix); check "
            "--labels, or drop it"
        )
    logger.warning(
        "%d of %d images have no label below %s, such as %s", missing, manifest.num_rows, labels, ", ".join(named)
    )


def _unlabelled(manifest: Manifest) -> Iterator[str]:
    """Yield the URIs of the images without a label."""
    for table in manifest.tables():
        for row in table.select(["image_uri", "label_uri"]).to_pylist():
            if row["label_uri"] is None:
                yield row["image_uri"]


def _check_classes(config: SegmentConfig, spec: NetworkSpec, manifest: Manifest, storage: Storage) -> None:
    """Decode the first labels; raise ConfigError if none of them has the network's classes.

    The remaining labels would then hardly have them either, and every labeled image would become an error row.
    """
    space = labels_of(config, spec)
    labelled = (uri for table in manifest.tables() for uri in table["label_uri"].to_pylist() if uri is not None)
    refused = []
    for uri in itertools.islice(labelled, _LOOKED_AT):
        try:
            data = storage.read(uri)
            decode_label(data, len(spec.classes), spec.ignore_label, space, max_pixels=config.max_pixels, name=uri)
            return
        except UnknownClasses as error:
            refused.append(str(error))
        except (DecodeError, ObjectMissing):
            # One bad file becomes an error row later; it is no evidence about the other files.
            return
    if refused:
        raise ConfigError(f"the labels contradict the checkpoint's {len(spec.classes)} classes: {refused[0]}")
