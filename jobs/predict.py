"""Segment a few images with a network, without Ray: a mask and an overlay of each, as PNG.

    python jobs/predict.py photo.jpg s3://bucket/in/0001.jpg --checkpoint network.safetensors --output out

The quickest look at a network. For a whole bucket, with tables and scores, use jobs/segment_bucket.py. Exit codes:
0 done; 2 wrong usage, an unusable network or two images of one name; 3 an image cannot be read, or the storage failed.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

# `ray job submit` and plain python put jobs/ on the path, not the repository's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from model.dilated.network import DilatedNetwork
from model.errors import CheckpointError
from model.files.checkpoint import from_bytes
from model.kernels.preparation import prepare
from model.prediction.dense_prediction import predict
from pipeline.data.images import decode_image
from pipeline.data.labels import encode_mask
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, DecodeError, ObjectMissing, PipelineError
from pipeline.results.report.contact_sheet import overlay


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict every image, print the largest classes of each, and return the exit code."""
    options = _parse(arguments)
    storage = Storage()
    try:
        names = _names(options.images)
        network = _load(options.checkpoint, storage)
        for uri, name in zip(options.images, names, strict=True):
            print(f"{uri}: {_predict(network, uri, join(options.output, name), storage)}")
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"masks and overlays in {options.output}")
    return 0


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


def _load(uri: str, storage: Storage) -> DilatedNetwork:
    try:
        # Transformed weights pay for themselves after many images only.
        return prepare(from_bytes(storage.read(uri)), 0)
    except CheckpointError as error:
        raise ConfigError(f"{uri} is not a usable checkpoint: {error}") from error
    except ObjectMissing as error:
        raise ConfigError(f"{error}: give the URI of a network.safetensors") from error


def _predict(network: DilatedNetwork, uri: str, target: str, storage: Storage) -> str:
    """Write `<target>.png` and `<target>_overlay.png`; return the shares of the largest classes as text."""
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
    largest = np.argsort(-shares, kind="stable")[:3]
    return ", ".join(f"{spec.classes[index]} {shares[index]:.0%}" for index in largest if shares[index] > 0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Segment a few images with a network: a mask and an overlay of each.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="path or URI of an image")
    parser.add_argument("--checkpoint", required=True, help="path or URI of a network.safetensors")
    parser.add_argument("--output", required=True, help="path or URI of a folder for NAME.png and NAME_overlay.png")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
