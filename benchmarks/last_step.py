"""Last step of prediction on one thread: several ways from a score map to labels, on random score maps.

    python -m benchmarks.last_step [--rounds 9]

`naive` computes all classes at full resolution with gathers, as the reference code does, then argmax, maximum, entropy
and pixel counts. `interpolate` is torch's own bilinear interpolation on the grid of (n - 1)·8 + 1 pixels, followed by
argmax alone. `bands` is torch in bands of 32 pixel rows with a running maximum over classes, and entropy; no counts.
`fused` is `labels_from_scores` as prediction calls it: labels, confidence, entropy, pixel counts and the confusion
matrix; `deconvolution` is the same with the other upsampling. All ways start from scores of random maps with smooth
regions, and include softmax. The ways alternate; the figures are medians of the rounds. `first call` is the time that a
process pays once, to compile or to load what an earlier process has compiled. The benchmark writes
benchmarks/results/last_step.json.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.probe import alternate, write_results
from model.networks.dilated.geometry import OUTPUT_STRIDE
from model.prediction.upsampling import DECONVOLUTION, GRID, cells_needed, labels_from_scores

# Width, height and classes of CamVid, VOC and Cityscapes.
SIZES = ((480, 360, 11), (500, 375, 21), (2048, 1024, 19))
_BAND_CELLS = 4
_FIRST_CALL = """
import time, torch
from model.prediction.upsampling import labels_from_scores
scores, started = torch.zeros(2, 3, 3), time.perf_counter()
labels_from_scores(scores, 16, 16)
print(time.perf_counter() - started)
"""


def main() -> None:
    """Run the benchmark, print a table, and write last_step.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'size':<14}{'way':<15}{'ms':>9}{'least to greatest':>22}{'times fused':>16}")
    rows = {"×".join(map(str, size)): _compare(*size, options.rounds) for size in SIZES}
    first = _first_calls()
    print(f"first call: {first['compiled']:.2f} s compiled, {first['loaded']:.2f} s loaded")
    write_results("last_step", {"seconds": rows, "first_call_seconds": first, "rounds": options.rounds})


def _compare(width: int, height: int, classes: int, rounds: int) -> dict[str, Any]:
    """Return seconds of each way at one size, and its ratio to the fused way; raise RuntimeError if labels differ."""
    scores = _drawn_scores(classes, *cells_needed(height, width, GRID))
    target = np.random.default_rng(0).integers(0, classes, (height, width)).astype(np.uint8)
    others = {"naive": naive, "interpolate": interpolate, "bands": bands}
    ways: dict[str, Callable[[], Any]] = {name: partial(way, scores, height, width) for name, way in others.items()}
    ways["fused"] = lambda: labels_from_scores(scores, height, width, confidence=True, target=target)
    ways["deconvolution"] = lambda: labels_from_scores(
        scores, height, width, DECONVOLUTION, confidence=True, target=target
    )
    ours = _labels(ways["fused"]())
    for name in others:
        differing = float((_labels(ways[name]()) != ours).mean())
        if differing > 1e-3:
            raise RuntimeError(f"{name} labels {differing:.2%} of pixels otherwise")
    timings = alternate(ways, rounds)
    result = {}
    for name, timing in timings.items():
        result[name] = timing | {"times_fused": timing["median"] / timings["fused"]["median"]}
        size, spread = f"{width}×{height}×{classes}", f"{timing['least'] * 1e3:.2f} to {timing['greatest'] * 1e3:.2f}"
        print(f"{size:<14}{name:<15}{timing['median'] * 1e3:>9.2f}{spread:>22}{result[name]['times_fused']:>16.2f}")
    return result


def _labels(result: Any) -> NDArray[np.uint8]:
    """Return the labels (H, W) of any way's result."""
    return np.asarray(getattr(result, "labels", result))


def _drawn_scores(classes: int, rows: int, columns: int) -> Tensor:
    """Return random scores (C, rows, columns): smooth regions of a dozen cells, with some noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, classes, rows // 12 + 2, columns // 12 + 2, generator=generator) * 5
    smooth = functional.interpolate(coarse, (rows, columns), mode="bicubic")[0]
    return smooth + torch.randn(classes, rows, columns, generator=generator) / 2


def naive(scores: Tensor, height: int, width: int) -> NDArray[np.uint8]:
    """Compute all classes at full resolution, each pixel from its four cells; return labels (H, W)."""
    # (C, rows, columns) -> (C, H, W), bilinear between the four cells around each pixel.
    cells = scores.softmax(dim=0).numpy()
    y = np.arange(height)
    x = np.arange(width)
    top = y // OUTPUT_STRIDE
    left = x // OUTPUT_STRIDE
    down = (y % OUTPUT_STRIDE / np.float32(OUTPUT_STRIDE)).astype(np.float32)[:, None]
    right = (x % OUTPUT_STRIDE / np.float32(OUTPUT_STRIDE)).astype(np.float32)
    upper = cells[:, top[:, None], left] * (1 - right) + cells[:, top[:, None], left + 1] * right
    lower = cells[:, top[:, None] + 1, left] * (1 - right) + cells[:, top[:, None] + 1, left + 1] * right
    probabilities = upper * (1 - down) + lower * down
    labels = probabilities.argmax(axis=0).astype(np.uint8)
    confidence = probabilities.max(axis=0)
    # The results below are not used; they are part of the work that is timed.
    (confidence * 255).round().astype(np.uint8), confidence.mean(dtype=np.float64)
    -(probabilities * np.log(np.maximum(probabilities, 1e-30))).sum(axis=0).mean(dtype=np.float64)
    np.bincount(labels.ravel(), minlength=len(cells))
    return labels


def interpolate(scores: Tensor, height: int, width: int) -> NDArray[np.uint8]:
    """Compute labels (H, W) with torch's interpolation.

    With aligned corners and this size, torch's interpolation equals the `grid` upsampling except for rounding.
    """
    cells = scores.softmax(dim=0)
    size = tuple((count - 1) * OUTPUT_STRIDE + 1 for count in cells.shape[1:])
    pixels = functional.interpolate(cells[None], size, mode="bilinear", align_corners=True)[0]
    return pixels[:, :height, :width].argmax(dim=0).to(torch.uint8).numpy()


@torch.inference_mode()
def bands(scores: Tensor, height: int, width: int) -> NDArray[np.uint8]:
    """Compute labels (H, W) in bands that stay in the cache, with a running maximum instead of `max(dim=0)`.

    This is the fastest way with torch alone on a CPU.
    """
    cells = scores.softmax(dim=0)
    fractions = torch.arange(OUTPUT_STRIDE) / OUTPUT_STRIDE
    labels, winning = np.empty((2, height, width), np.uint8)
    for row in range(0, cells.shape[1] - 1, _BAND_CELLS):
        part = cells[:, row : row + _BAND_CELLS + 1]
        down = torch.lerp(part[:, :-1, None], part[:, 1:, None], fractions[:, None]).flatten(1, 2)
        pixels = torch.lerp(down[..., :-1, None], down[..., 1:, None], fractions).flatten(2, 3)
        top = row * OUTPUT_STRIDE
        probabilities = pixels[:, : height - top, :width]
        best, best_class = _running_maximum(probabilities)
        band = slice(top, top + best.shape[0])
        labels[band], winning[band] = best_class.numpy(), (best * 255).round().to(torch.uint8).numpy()
        best.sum(dtype=torch.float64), torch.special.entr(probabilities).sum(dtype=torch.float64)
    return labels


def _running_maximum(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return maximum and index of the maximum over the first axis; the lowest index wins a tie."""
    best = probabilities[0].clone()
    best_class = torch.zeros(best.shape, dtype=torch.uint8)
    for class_id in range(1, probabilities.shape[0]):
        candidate = probabilities[class_id]
        best_class.masked_fill_(candidate > best, class_id)
        torch.maximum(best, candidate, out=best)
    return best, best_class


def _first_calls() -> dict[str, float]:
    """Return seconds of a process's first call with an empty compiler cache, and with a filled one.

    The import of the compiler is included.
    """
    with tempfile.TemporaryDirectory(prefix="last-step-") as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        command = [sys.executable, "-c", _FIRST_CALL]
        first, second = (
            float(subprocess.run(command, env=environment, capture_output=True, check=True).stdout) for _ in range(2)
        )
    return {"compiled": first, "loaded": second}


if __name__ == "__main__":
    main()
