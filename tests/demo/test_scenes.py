"""Tests of the drawn scenes: one seed gives one scene, and labels match the drawn objects."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.street.scene import VOID, VOID_BORDER, draw_scene, encode_scene
from pipeline.data.images import decode_image
from pipeline.data.label_spaces import label_space
from pipeline.data.labels import decode_label

CLASSES = label_space("street_scenes").classes
ROOT = Path(__file__).resolve().parents[2]


def digest(seed: int) -> str:
    return hashlib.sha256(b"".join(part.tobytes() for part in draw_scene(seed))).hexdigest()


def test_a_seed_decides_everything_in_any_process() -> None:
    command = f"import sys; sys.path.insert(0, '.'); from tests.demo.test_scenes import digest; print(digest({7}))"
    other = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert other.stdout.strip() == digest(7), other.stderr
    assert digest(7) != digest(8)


def test_shapes_values_and_the_void_border() -> None:
    image, label = draw_scene(3)
    assert image.dtype == label.dtype == np.uint8
    assert image.shape == (240, 320, 3) and label.shape == (240, 320)
    inside = label[VOID_BORDER:-VOID_BORDER, VOID_BORDER:-VOID_BORDER]
    assert inside.max() < len(CLASSES)
    assert (label == VOID).sum() == label.size - inside.size


def test_every_class_is_drawn_and_none_drowns_the_others() -> None:
    counts = sum(np.bincount(draw_scene(seed)[1].ravel(), minlength=256)[: len(CLASSES)] for seed in range(8))
    shares = dict(zip(CLASSES, counts / np.sum(counts), strict=True))
    assert min(shares.values()) > 0.001, shares
    assert max(shares.values()) < 0.5, shares


@pytest.mark.parametrize("seed", [11, 12])
def test_the_label_fits_the_image(seed: int) -> None:
    """Color varies less within a class than over the picture."""
    image, label = draw_scene(seed)
    valid = label != VOID
    colours = image[valid].astype(np.float64)
    ids = label[valid]
    within = sum(((colours[ids == c] - colours[ids == c].mean(axis=0)) ** 2).sum() for c in np.unique(ids))
    assert within < 0.9 * ((colours - colours.mean(axis=0)) ** 2).sum()


def test_files_are_what_the_pipeline_reads() -> None:
    image, label = encode_scene(5)
    drawn, ids = draw_scene(5)
    assert np.array_equal(decode_label(label, len(CLASSES)), ids)
    assert Image.open(io.BytesIO(label)).mode == "P"
    assert np.abs(decode_image(image).astype(int) - drawn).mean() < 8
