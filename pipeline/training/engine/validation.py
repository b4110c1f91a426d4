"""Validation of a network: IoU over all pixels of whole images, from one confusion matrix over all workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.networks.network import Network
from model.prediction.dense_prediction import label_map, predict
from model.prediction.label_map import LabelMap
from model.prediction.views import views
from pipeline.results.statistics.scores import Matrix, iou_per_class, mean_iou, pixel_accuracy
from pipeline.training.engine.stages import evaluating
from pipeline.training.engine.world import World
from pipeline.training.feature_maps import MapCache
from pipeline.training.samples.sources import Images, evenly_spread

__all__ = ["Validation", "validate"]


@dataclass(frozen=True)
class Validation:
    """Scores of a network on the validation split.

    Attributes:
        classes: Names of the classes.
        iou: IoU (0–1) of each class; None if undefined.
        mean_iou: Mean of the IoU over the classes; None if undefined.
        pixel_accuracy: Share (0–1) of labeled pixels that are predicted correctly; None if undefined.
        images: Number of images that were scored.
    """

    classes: tuple[str, ...]
    iou: tuple[float | None, ...]
    mean_iou: float | None
    pixel_accuracy: float | None
    images: int

    def summary(self) -> dict[str, Any]:
        """Return the scores as JSON values for checkpoints and `metrics.json`."""
        return {
            "mean_iou": self.mean_iou,
            "pixel_accuracy": self.pixel_accuracy,
            "images": self.images,
            "iou": dict(zip(self.classes, self.iou, strict=True)),
        }


def validate(
    network: Network,
    images: Images,
    world: World,
    cache: MapCache | None = None,
    limit: int | None = None,
    on_image: Callable[[int, NDArray[np.uint8]], None] = lambda index, labels: None,
) -> Validation:
    """Predict and score the whole split, or `limit` evenly spread images of it.

    Args:
        network: Network to validate; its training or evaluation mode is restored afterwards.
        images: Images and labels at their original size, at which they are scored.
        world: Workers that share the images.
        cache: Cache of maps of these images, from which prediction starts; None: it starts from the images.
        limit: Most images to score; None: all.
        on_image: Callback for each image of this worker, with its index and its predicted labels (H, W).
    """
    chosen = evenly_spread(len(images), len(images) if limit is None else limit)
    classes = network.spec.classes
    total: Matrix = np.zeros((len(classes), len(classes)), np.int64)
    with evaluating(network):
        for place in world.share(len(chosen)):
            index = chosen[place]
            label = images.label(index)
            prediction = _predict(network, images, index, cache, label, world)
            if prediction.confusion is not None:
                total += prediction.confusion
            on_image(index, prediction.labels)
    # Workers may finish minutes apart, which the timeout of the sum does not allow; the barrier waits longer.
    world.barrier()
    # Pixel counts exceed 2^24, the largest exact range of float32, so they are summed as integers.
    total = world.sum(torch.from_numpy(total)).cpu().numpy()
    return Validation(classes, tuple(iou_per_class(total)), mean_iou(total), pixel_accuracy(total), len(chosen))


def _predict(
    network: Network,
    images: Images,
    index: int,
    cache: MapCache | None,
    label: NDArray[np.uint8],
    world: World,
) -> LabelMap:
    """Return the labels of an image and their confusion matrix, computed from the image or from its cached map."""
    if cache is None:
        return predict(network, images.image(index), target=label)
    with torch.inference_mode():
        # (F, h + halo, w + halo) -> (1, F, h + halo, w + halo)
        maps = cache.load(images, index, mirror=False).float().to(world.device)[None]
        scores = network.front_end.head(maps) if cache.before_head else maps
        # A stored map may have a cell more than prediction computes, and the context module would see it.
        looks = views((1.0,), flip=False, resize=network.spec.resize)
        rows, columns = network.score_map_size(*looks[0].size(label.shape[0], label.shape[1]))
        # -> scores (C, rows, columns)
        scores = network.add_context(scores[:, :, :rows, :columns])[0]
    return label_map(network.spec, [scores], (label.shape[0], label.shape[1]), views=looks, target=label)
