"""Prediction for images of any size, in memory bounded by one window plus the score map.

Only the front end is tiled. Each window includes on every side as many pixels of its real surroundings as a score
depends on (`Footprint`; 186 for the dilated front end). The windows' cells form one score map, which is much smaller
than the image, and the context module runs on the whole map. So no seam can appear, and the result does not depend on
the size of the window. Only networks in which every score depends on the whole image have no such windows: theirs
overlap, and their probabilities are blended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import PredictionError
from model.networks.network import Network, NetworkSpec
from model.prediction import reference_geometry
from model.prediction.averaging import average_labels
from model.prediction.geometry import Footprint, Window, plan_windows
from model.prediction.label_map import LabelMap, check_target
from model.prediction.labels_by_window import label_by_windows, needs_windows
from model.prediction.streams import Stream
from model.prediction.upsampling import labels_from_scores
from model.prediction.views import PLAIN, View
from model.prediction.views import views as views_of
from model.prediction.window_input import WindowInput, preprocess
from model.prediction.window_scores import window_scores

__all__ = ["DEFAULT_WINDOW", "Geometry", "label_map", "network_input", "predict", "score_map", "score_maps"]

Geometry = Literal["image", "reference"]
# Pixels per side, margin included: 108 cells, about 1 GiB of activations at full width in float32.
DEFAULT_WINDOW = 1236
_LEAST = 1e-12  # smallest blended probability, before the logarithm


def predict(
    network: Network,
    image: NDArray[np.uint8],
    *,
    max_window: int = DEFAULT_WINDOW,
    geometry: Geometry = "image",
    views: Sequence[View] | None = None,
    confidence: bool = False,
    target: NDArray[np.uint8] | None = None,
    on_window: Callable[[], None] = lambda: None,
) -> LabelMap:
    """Label every pixel of an image.

    Args:
        network: Network in evaluation mode, on any device.
        image: Image, (H, W, 3) uint8 RGB, at least one pixel per side.
        max_window: Longest side of a front-end window, pixels, margin included; `image` geometry only.
        geometry: Kind of tiling: `image` as described in the module's docstring; `reference` tile by tile, as the
            released nets do.
        views: Views whose probabilities are averaged, in `image` geometry only; None: one at the working size.
        confidence: Whether to keep the winning probability of each pixel.
        target: Class ids or the network's ignore label, (H, W), to count the labels against; None: no confusion
            matrix.
        on_window: Callback after each window or tile, and once more before upsampling (`image` geometry).

    Raises:
        PredictionError: If a score is NaN or infinite.
        ValueError: If `max_window` is too small, the network has no reference window, or the target has another size
            or type, or an id out of range.
    """
    height, width = image.shape[:2]
    check_target(target, height, width)
    if geometry == "reference":
        pixels = preprocess(image, network.spec.mean_bgr)
        return reference_geometry.predict(network, pixels, confidence=confidence, target=target, on_window=on_window)
    views = views or views_of((1.0,), flip=False, resize=network.spec.resize)
    if tuple(views) == PLAIN and needs_windows(network, network.score_map_size(height, width)):
        source = network_input(network, image, max_window)
        return label_by_windows(
            network, source, max_window=max_window, confidence=confidence, target=target, on_window=on_window
        )
    scores = [score_map(network, view.of(image), max_window=max_window, on_window=on_window) for view in views]
    return label_map(network.spec, scores, (height, width), views=views, confidence=confidence, target=target)


def label_map(
    spec: NetworkSpec,
    scores: Sequence[Tensor],
    size: tuple[int, int],
    *,
    views: Sequence[View] = PLAIN,
    confidence: bool = False,
    target: NDArray[np.uint8] | None = None,
) -> LabelMap:
    """Turn the score maps of an image into its label map: the second half of `predict`.

    It is separate so that a caller can overlap it with the network's work on the next image.

    Args:
        spec: Description of the network (classes, upsampling, ignore label).
        scores: Results of `score_map`, one per view.
        size: Height and width of the image, pixels.
        views: Views from which the scores come, in the order of `scores`.
        confidence: Whether to keep the winning probability of each pixel.
        target: Class ids or the network's ignore label, (H, W), to count the labels against; None: no confusion
            matrix.

    Raises:
        PredictionError: If a score is NaN or infinite.
        ValueError: If the target has another size or type, or an id out of range.
    """
    height, width = size
    if not all(bool(torch.isfinite(each).all()) for each in scores):
        raise PredictionError(
            f"the score map of this {height}×{width} image holds NaN or infinite values: check the checkpoint"
        )
    if tuple(views) != PLAIN:
        return average_labels(spec, views, scores, size, confidence=confidence, target=target)
    (plain,) = scores
    return labels_from_scores(
        plain, height, width, spec.upsampling, confidence=confidence, target=target, ignore_label=spec.ignore_label
    )


def network_input(
    network: Network,
    image: NDArray[np.uint8],
    max_window: int = DEFAULT_WINDOW,
    stream: Stream | None = None,
) -> WindowInput:
    """Return the network's input for an image, from which `score_map` starts.

    With a stream, the input of an image that fits one window is computed at once; a caller can do this in a thread and
    a stream of its own. Windows of larger images, and all windows without a stream, are cut when the network needs
    them.

    Args:
        network: Network whose spec and device determine the input.
        image: Image, (H, W, 3) uint8 RGB.
        max_window: Longest side of a front-end window, pixels, margin included.
        stream: Stream that computes the input of a one-window image; None: nothing is computed yet.

    Raises:
        ValueError: If `max_window` cannot hold a cell.
    """
    height, width = image.shape[:2]
    cells = network.score_map_size(height, width)
    device = next(network.parameters()).device
    footprint = network.front_end.footprint
    source = WindowInput(image, cells, network.spec.mean_bgr, device, footprint)
    windows = plan_windows(*cells, max_window, footprint)
    if stream is not None and len(windows) == 1:
        source.prepare(windows[0], stream)
    return source


def score_map(
    network: Network,
    image: NDArray[np.uint8] | WindowInput,
    *,
    max_window: int = DEFAULT_WINDOW,
    on_window: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return an image's scores after the context module, (C, rows, columns) float32 on the network's device."""
    source = image if isinstance(image, WindowInput) else network_input(network, image, max_window)
    return score_maps(network, [source], max_window=max_window, on_window=on_window)[0]


@torch.inference_mode()
def score_maps(
    network: Network,
    images: Sequence[WindowInput],
    *,
    max_window: int = DEFAULT_WINDOW,
    on_window: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return the scores of images of one `WindowInput.batch_size`, computed as batches: (N, C, rows, columns) float32.

    Args:
        network: Network in evaluation mode.
        images: Inputs of the N images.
        max_window: Longest side of a front-end window, pixels, margin included.
        on_window: Callback after each window, and once more after the context module.

    Raises:
        ValueError: If the sizes differ, or `max_window` cannot hold a cell.
    """
    parts = list(window_scores(network, images, max_window, on_window))
    scores = network.add_context(_assemble(parts, images[0].cells, network.front_end.footprint)).float()
    on_window()
    return scores


def _assemble(parts: Sequence[tuple[Window, Tensor]], cells: tuple[int, int], footprint: Footprint) -> Tensor:
    """Assemble the scores of windows, (N, C, h, w) each, to the score map of the whole image, (N, C, rows, columns)."""
    first = parts[0][1]
    if len(parts) == 1:
        return first
    shape = (*first.shape[:2], *cells)
    if footprint.overlap is None:
        whole = torch.empty(shape, device=first.device)
        for window, part in parts:
            whole[:, :, *window.cells] = part
        return whole
    # Mean of the overlapping windows' probabilities. Its logarithm serves as score: softmax gives the mean again.
    whole = torch.zeros(shape, device=first.device)
    total = torch.zeros(cells, device=first.device)
    for window, part in parts:
        weight = blend_weight(window, cells, footprint.overlap / footprint.stride).to(whole.device)
        whole[:, :, *window.cells] += part.float().softmax(dim=1) * weight
        total[*window.cells] += weight
    return (whole / total).clamp_min(_LEAST).log()


def blend_weight(window: Window, cells: tuple[int, int], overlap: float) -> Tensor:
    """Return the weight of a window's cells, (h, w): it falls smoothly to almost 0 at edges within the image.

    Args:
        window: Window of the score map.
        cells: Rows and columns of the score map.
        overlap: Cells over which the weight falls.
    """
    axes = []
    for kept, length in zip(window.cells, cells, strict=True):
        place = torch.arange(kept.stop - kept.start) + 0.5
        before = place if kept.start else torch.full_like(place, torch.inf)
        after = place.flip(0) if kept.stop < length else torch.full_like(place, torch.inf)
        share = (torch.minimum(before, after) / max(overlap, 1.0)).clamp_max(1.0)
        axes.append((share * torch.pi / 2).sin().square())
    return axes[0][:, None] * axes[1]
