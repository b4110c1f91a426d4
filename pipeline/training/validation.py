"""IoU on the validation split: whole images, all pixels, one confusion matrix over all workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.dense_prediction import label_map, predict
from model.label_map import LabelMap
from model.network import DilatedNetwork
from model.views import views
from pipeline.results.scores import Matrix, iou_per_class, mean_iou, pixel_accuracy
from pipeline.training.map_cache import MapCache
from pipeline.training.sources import Images
from pipeline.training.stages import evaluating
from pipeline.training.world import World

__all__ = ["Validation", "validate"]


@dataclass(frozen=True)
class Validation:
    """Scores of the split; None where undefined."""

    classes: tuple[str, ...]
    iou: tuple[float | None, ...]
    mean_iou: float | None
    pixel_accuracy: float | None
    images: int

    def summary(self) -> dict[str, Any]:
        """For checkpoints and `metrics.json`."""
        return {
            "mean_iou": self.mean_iou,
            "pixel_accuracy": self.pixel_accuracy,
            "images": self.images,
            "iou": dict(zip(self.classes, self.iou, strict=True)),
        }


def validate(
    network: DilatedNetwork,
    images: Images,
    world: World,
    cache: MapCache | None = None,
    limit: int | None = None,
    on_image: Callable[[int, NDArray[np.uint8]], None] = lambda index, labels: None,
) -> Validation:
    """Predicts the split (or `limit` images, evenly spread) and scores it.

    Args:
        network: left in the mode it was in.
        images: Images and labels at their own size, at which they are scored.
        world: shares the images out.
        cache: of maps of these images to start from, where there is one.
        limit: most images.
        on_image: called with the number of each image of this worker and its (H, W) predicted labels.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, len(images) if limit is None else limit).astype(int))
    classes = network.spec.classes
    total: Matrix = np.zeros((len(classes), len(classes)), np.int64)
    with evaluating(network):
        for place in world.share(len(chosen)):
            index, label = int(chosen[place]), images.label(int(chosen[place]))
            prediction = _predict(network, images, index, cache, label, world)
            if prediction.confusion is not None:
                total += prediction.confusion
            on_image(index, prediction.labels)
    # One worker may be minutes behind another by now, and the sum gives up sooner than that.
    world.wait()
    # Pixel counts exceed float32's 2^24: they travel as integers.
    total = world.sum(torch.from_numpy(total)).cpu().numpy()
    return Validation(classes, tuple(iou_per_class(total)), mean_iou(total), pixel_accuracy(total), len(chosen))


def _predict(
    network: DilatedNetwork,
    images: Images,
    index: int,
    cache: MapCache | None,
    label: NDArray[np.uint8],
    world: World,
) -> LabelMap:
    if cache is None:
        return predict(network, images.image(index), target=label)
    with torch.inference_mode():
        maps = cache.load(images, index, mirror=False).float().to(world.device)[None]
        scores = network.add_context(network.front_end.head(maps) if cache.halo else maps)[0]
    looks = views((1.0,), flip=False, resize=network.spec.resize)
    return label_map(network.spec, [scores], (label.shape[0], label.shape[1]), views=looks, target=label)
