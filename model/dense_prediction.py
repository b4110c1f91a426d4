"""A label for every pixel of an image of any size, in memory bounded by one window plus the score map.

Only the front end is tiled. Its windows each see their own 186 pixels of real neighbourhood, the score map (64
times smaller than the image) is assembled whole, and the context module runs on all of it, so no seam can appear
and the result does not depend on the size of the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import reference_geometry
from model.averaging import average_labels
from model.errors import PredictionError
from model.geometry import plan_windows
from model.label_map import LabelMap, check_target
from model.network import DilatedNetwork, NetworkSpec
from model.streams import Stream
from model.upsampling import cells_needed, labels_from_scores
from model.views import PLAIN, View
from model.views import views as views_of
from model.window_input import WindowInput, preprocess

__all__ = ["DEFAULT_WINDOW", "Geometry", "label_map", "network_input", "predict", "score_map", "score_maps"]

Geometry = Literal["image", "reference"]
# Pixels a side, margin included: 108 cells, about 1 GiB of activations at full width in float32.
DEFAULT_WINDOW = 1236


def predict(
    network: DilatedNetwork,
    image: NDArray[np.uint8],
    *,
    max_window: int = DEFAULT_WINDOW,
    geometry: Geometry = "image",
    views: Sequence[View] | None = None,
    confidence: bool = False,
    target: NDArray[np.uint8] | None = None,
    on_window: Callable[[], None] = lambda: None,
) -> LabelMap:
    """Labels every pixel.

    Args:
        network: in evaluation mode, on any device.
        image: (H, W, 3) uint8 RGB, at least one pixel a side.
        max_window: longest side of a front-end window, pixels, margin included; `image` geometry only.
        geometry: `image` as described in the module's text; `reference` as the released nets do, tile by tile.
        views: Views whose probabilities are averaged, in `image` geometry only; None: one at the working size.
        confidence: whether to keep the winning probability of each pixel.
        target: (H, W) class ids, or the network's ignore label, to count the labels against.
        on_window: called after each window, or tile, and once more before upsampling.

    Raises:
        PredictionError: if a score is NaN or infinite.
        ValueError: if `max_window` is too small, the network has no reference window, or the target is of another
            size or has an id out of range.
    """
    height, width = image.shape[:2]
    check_target(target, height, width)
    if geometry == "reference":
        pixels = preprocess(image, network.spec.mean_bgr)
        return reference_geometry.predict(network, pixels, confidence=confidence, target=target, on_window=on_window)
    views = views or views_of((1.0,), flip=False, resize=network.spec.resize)
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
    """The second half of `predict`, for whoever overlaps it with the network's next image.

    Args:
        spec: of the network.
        scores: of `score_map`, one of each view.
        size: height and width of the image, pixels.
        views: Views from which the scores come, one of each.
        confidence: as for `predict`.
        target: as for `predict`.

    Raises:
        PredictionError: if a score is NaN or infinite.
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
    network: DilatedNetwork,
    image: NDArray[np.uint8],
    max_window: int = DEFAULT_WINDOW,
    stream: Stream | None = None,
) -> WindowInput:
    """What `score_map` starts from; whoever has a thread and a stream to spare makes it there.

    An image of one window is ready for the network then; larger ones are cut as the network gets to them, and so are
    all without a stream.
    """
    height, width = image.shape[:2]
    cells = cells_needed(height, width, network.spec.upsampling)
    device = next(network.parameters()).device
    source = WindowInput(image, cells, network.spec.mean_bgr, device)
    windows = plan_windows(*cells, max_window)
    if stream is not None and len(windows) == 1:
        source.prepare(windows[0], stream)
    return source


def score_map(
    network: DilatedNetwork,
    image: NDArray[np.uint8] | WindowInput,
    *,
    max_window: int = DEFAULT_WINDOW,
    on_window: Callable[[], None] = lambda: None,
) -> Tensor:
    """Scores of the whole image after the context module, (C, rows, columns) float32 on the network's device."""
    source = image if isinstance(image, WindowInput) else network_input(network, image, max_window)
    return score_maps(network, [source], max_window=max_window, on_window=on_window)[0]


@torch.inference_mode()
def score_maps(
    network: DilatedNetwork,
    images: Sequence[WindowInput],
    *,
    max_window: int = DEFAULT_WINDOW,
    on_window: Callable[[], None] = lambda: None,
) -> Tensor:
    """The same of images whose score maps have one size, as batches: (N, C, rows, columns).

    Raises:
        ValueError: if their sizes in cells differ.
    """
    (cells,) = {image.cells for image in images}
    parameter = next(network.parameters())
    windows = plan_windows(*cells, max_window)
    with torch.autocast(parameter.device.type, torch.bfloat16, enabled=parameter.device.type == "cuda"):
        parts = []
        for window in windows:
            first, *others = (image.batch(window) for image in images)
            batch = torch.cat([first, *others]) if others else first
            parts.append(network.front_end(batch.to(parameter.dtype)))
            on_window()
    whole = parts[0]
    if len(windows) > 1:
        whole = torch.empty(len(images), len(network.spec.classes), *cells, device=parameter.device)
        for window, part in zip(windows, parts, strict=True):
            whole[:, :, *window.cells] = part
    # Outside of autocast: the context module's work is small, and labels hang on its precision.
    scores = network.add_context(whole).float()
    on_window()
    return scores
