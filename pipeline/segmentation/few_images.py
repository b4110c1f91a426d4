"""Prediction of a few images in this process, without Ray: a network by URI, and masks and overlays as PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from model.errors import CheckpointError
from model.files.checkpoint import from_bytes
from model.kernels.preparation import prepare
from model.networks.network import Network
from model.networks.program.front_end import check_golden
from model.prediction.dense_prediction import predict
from pipeline.data.images import decode_image
from pipeline.data.labels import encode_mask
from pipeline.data.planned_files import PlannedFiles, check_target
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, DecodeError, ObjectMissing
from pipeline.results.report.contact_sheet import overlay

__all__ = ["PredictedImage", "load_network", "plan_images", "predict_images"]

# Number of the largest classes that the text of an image names.
_SHOWN = 3


@dataclass(frozen=True)
class PredictedImage:
    """Image whose mask and overlay were written.

    Attributes:
        uri: URI of the image.
        shares: Share of each class of all pixels, 0–1, by class name; largest first, without absent classes.
    """

    uri: str
    shares: dict[str, float]

    def text(self) -> str:
        """Return the image and its three largest classes as one line of text."""
        largest = list(self.shares.items())[:_SHOWN]
        return f"{self.uri}: {', '.join(f'{name} {share:.0%}' for name, share in largest)}"


def load_network(uri: str, storage: Storage | None = None, *, device: str = "cpu") -> Network:
    """Load a network that `predict` can use.

    Args:
        uri: Path or URI of a network.safetensors, or of an imported network.
        storage: Storage of the file; None: default retries.
        device: Device of the weights, such as `cpu` or `cuda`.

    Returns:
        The network in evaluation mode; its `spec` names the classes and the palette.

    Raises:
        ConfigError: If there is no such file, or it is not a usable network.
        StorageError: If storage fails.
    """
    storage = storage or Storage()
    try:
        # Transformed weights pay for themselves after many images only.
        network = from_bytes(storage.read(uri)).to(device)
        check_golden(network)
        return prepare(network, 0)
    except CheckpointError as error:
        raise ConfigError(f"{uri} is not a usable checkpoint: {error}") from error
    except ObjectMissing as error:
        raise ConfigError(f"{error}: give the URI of a network.safetensors") from error


def predict_images(
    uris: Sequence[str], checkpoint: str, output: str, storage: Storage | None = None
) -> Iterator[PredictedImage]:
    """Predict images, write NAME.png and NAME_overlay.png of each, and yield the images one by one.

    Args:
        uris: Paths or URIs of the images.
        checkpoint: Path or URI of a network.safetensors.
        output: Path or URI of the folder; files of the same names are replaced.
        storage: Storage of all of them; None: default retries.

    Raises:
        ConfigError: If two images have one name, or the checkpoint is not a usable network.
        DecodeError: If an image cannot be read.
        StorageError: If storage fails.
    """
    storage = storage or Storage()
    names = _names(uris)
    network = load_network(checkpoint, storage)
    for uri, name in zip(uris, names, strict=True):
        yield _predict(network, uri, join(output, name), storage)


def plan_images(uris: Sequence[str], checkpoint: str, output: str, storage: Storage | None = None) -> PlannedFiles:
    """Return the files that `predict_images` would write, after a check of the network, the images and the folder.

    Args:
        uris: Paths or URIs of the images.
        checkpoint: Path or URI of a network.safetensors.
        output: Path or URI of the folder.
        storage: Storage of all of them; None: default retries.

    Raises:
        ConfigError: If two images have one name, or the checkpoint is not a usable network.
        StorageError: If an image is missing, or nothing can be written to the folder.
    """
    storage = storage or Storage()
    names = _names(uris)
    classes = len(load_network(checkpoint, storage).spec.classes)
    sizes = [storage.info(uri).size for uri in uris]
    check_target(storage, output)
    files: dict[str, str] = {}
    for uri, name, size in zip(uris, names, sizes, strict=True):
        files |= {f"{name}.png": f"mask of {uri} ({size:,} bytes), {classes} classes", f"{name}_overlay.png": "overlay"}
    return PlannedFiles(output, files)


def _names(uris: Sequence[str]) -> list[str]:
    """Return the name of each image without folder and extension.

    Raises:
        ConfigError: If two images have one name.
    """
    names = [PurePosixPath(uri).stem for uri in uris]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two images are called {name!r}: predict them one after the other, into two folders")
    return names


def _predict(network: Network, uri: str, target: str, storage: Storage) -> PredictedImage:
    """Write `<target>.png` and `<target>_overlay.png`, and return the shares of the classes."""
    try:
        image = decode_image(storage.read(uri))
    except DecodeError as error:
        raise DecodeError(f"{uri} cannot be read: {error}") from error
    spec = network.spec
    labels = predict(network, image)
    storage.write(f"{target}.png", encode_mask(labels.labels, spec.palette))
    sink = io.BytesIO()
    painted = overlay(image, labels.labels, np.asarray(spec.palette, np.uint8), spec.ignore_label)
    Image.fromarray(painted).save(sink, "PNG")
    storage.write(f"{target}_overlay.png", sink.getvalue())
    shares = labels.class_pixels / labels.labels.size
    order = np.argsort(-shares, kind="stable")
    return PredictedImage(uri, {spec.classes[index]: float(shares[index]) for index in order if shares[index] > 0})
