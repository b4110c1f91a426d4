"""Sampler of a stage: samples as a pure function of iteration and position, cut from images or from cached maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from model.dilated.network import NetworkSpec
from model.prediction.geometry import OUTPUT_STRIDE
from pipeline.training.feature_maps.cache import MapCache
from pipeline.training.recipes.schema import Recipe, StageName
from pipeline.training.samples.crops import Sample, SampleRule, image_sample, map_sample
from pipeline.training.samples.randomness import sample_params
from pipeline.training.samples.sources import Images

__all__ = ["sample_rule", "sampler"]


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
    """Return the settings that all samples of a stage share."""
    return SampleRule(
        cells=recipe.stage(stage).cells,
        mean_bgr=recipe.mean_bgr,
        ignore_label=spec.ignore_label,
        # A deconvolution is part of the network, so the loss covers every pixel, as in the reference code's training.
        target_stride=1 if spec.upsampling == "deconvolution" else OUTPUT_STRIDE,
        scale=recipe.random_scale,
    )
