"""Sample functions of the stages, and class weights that balance rare classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.networks.network import NetworkSpec
from model.prediction.upsampling import cells_needed
from pipeline.errors import ConfigError
from pipeline.training.feature_maps import MapCache
from pipeline.training.recipes.schema import Recipe, StageName
from pipeline.training.samples.crops import Sample, SampleRule, image_sample, map_sample, sample_params
from pipeline.training.samples.sources import Images

__all__ = ["class_weights", "sample_rule", "sampler", "weights_from_counts"]

# Pixels between the labels that class weights count, along each axis: those under the cells of a dilated network.
_SPACING = 8


def class_weights(images: Images, spec: NetworkSpec, power: float) -> Tensor | None:
    """Return the (C,) class weights of all training labels; None for a power of 0, which leaves the loss unweighted.

    Args:
        images: Images and labels of the training set.
        spec: Specification of the network, which names the classes and the ignored label.
        power: Exponent of the inverse frequency, 0–1.
    """
    if power == 0:
        return None

    def count(index: int) -> NDArray[np.int64]:
        label = images.label(index)[::_SPACING, ::_SPACING]
        return np.bincount(label[label != spec.ignore_label], minlength=len(spec.classes)).astype(np.int64)

    with ThreadPoolExecutor(8) as pool:
        return weights_from_counts(np.sum(list(pool.map(count, range(len(images)))), axis=0), power)


def weights_from_counts(counts: NDArray[np.int64], power: float) -> Tensor:
    """Return (median count / count)^power per class, scaled to a mean weight of 1 over all cells.

    Args:
        counts: (C,) number of labeled cells of each class.
        power: Exponent of the inverse frequency, 0–1.

    Returns:
        The (C,) float32 weights; a class without cells gets 0.
    """
    occurs = counts > 0
    weights = np.zeros(len(counts))
    weights[occurs] = (np.median(counts[occurs]) / counts[occurs]) ** power
    # The mean is taken over cells, not over classes: sum(weights * counts) / sum(counts) becomes 1.
    return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()


def sampler(
    recipe: Recipe, stage: StageName, spec: NetworkSpec, images: Images, cache: MapCache | None
) -> Callable[[int, int], Sample]:
    """Return a function from (iteration, position in the global batch) to a sample; safe to call from several threads.

    Args:
        recipe: Recipe of the run.
        stage: Name of the stage.
        spec: Specification of the network.
        images: Images and labels on which the stage learns.
        cache: Cache of the maps on which the stage learns; None if it learns on images.
    """
    rule = sample_rule(recipe, stage, spec)
    batch = recipe.stage(stage).batch

    def sample(iteration: int, position: int) -> Sample:
        chosen = sample_params(recipe.seed, stage, iteration, position, batch=batch, images=len(images))
        if not recipe.mirror:
            chosen = replace(chosen, mirror=False)
        uri = images.pairs[chosen.index].image_uri
        if cache is None:
            return image_sample(*images.pair(chosen.index), chosen, rule, uri)
        maps = cache.load(images, chosen.index, chosen.mirror)
        return map_sample(maps, images.label(chosen.index), chosen, rule, cache.halo, uri)

    return sample


def sample_rule(recipe: Recipe, stage: StageName, spec: NetworkSpec) -> SampleRule:
    """Return the settings that all samples of a stage share.

    Raises:
        ConfigError: If cells begin before the image and the loss would need the label under them.
    """
    upsampling = spec.upsampling
    every_pixel = upsampling.interpolates == "scores"
    if upsampling.anchor < 0 and not every_pixel:
        raise ConfigError(f"no pixel lies under the first cell of {upsampling}: interpolate scores instead")
    return SampleRule(
        crop=recipe.stage(stage).crop,
        mean_bgr=recipe.mean_bgr,
        ignore_label=spec.ignore_label,
        # If scores are interpolated, the loss covers every pixel, as in the reference code's training.
        target_stride=1 if every_pixel else upsampling.stride,
        scale=recipe.random_scale,
        footprint=recipe.footprint(),
        first=0 if every_pixel else math.floor(upsampling.anchor + 0.5),
        extra=cells_needed(upsampling.stride, upsampling.stride, upsampling)[0] - 1 if upsampling.anchor < 0 else 0,
    )
