"""The samples of a stage: a pure function of iteration and position, whatever they are cut from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from model.geometry import OUTPUT_STRIDE
from model.network import NetworkSpec
from pipeline.training.map_cache import MapCache
from pipeline.training.recipe_schema import Recipe, StageName
from pipeline.training.samples import Sample, SampleRule, image_sample, map_sample
from pipeline.training.sampling import draw
from pipeline.training.sources import Images

__all__ = ["sample_rule", "sampler"]


def sampler(
    recipe: Recipe, stage: StageName, spec: NetworkSpec, images: Images, cache: MapCache | None
) -> Callable[[int, int], Sample]:
    """Returns (iteration, position in the global batch) → sample; safe to call from several threads.

    Args:
        recipe: of the run.
        stage: which samples.
        spec: of the network.
        images: that the stage learns on.
        cache: of the maps that the stage starts from; None if it starts from images.
    """
    rule, batch = sample_rule(recipe, stage, spec), recipe.stage(stage).batch

    def sample(iteration: int, position: int) -> Sample:
        chosen = draw(recipe.seed, stage, iteration, position, batch=batch, images=len(images))
        if not recipe.mirror:
            chosen = replace(chosen, mirror=False)
        uri = images.pairs[chosen.index].image_uri
        if cache is None:
            return image_sample(*images.pair(chosen.index), chosen, rule, uri)
        maps = cache.load(images, chosen.index, chosen.mirror)
        return map_sample(maps, images.label(chosen.index), chosen, rule, cache.halo, uri)

    return sample


def sample_rule(recipe: Recipe, stage: StageName, spec: NetworkSpec) -> SampleRule:
    """What all samples of a stage have in common."""
    return SampleRule(
        cells=recipe.stage(stage).cells,
        mean_bgr=recipe.mean_bgr,
        ignore_label=spec.ignore_label,
        # A deconvolution is part of the network: its loss looks at every pixel, as the reference code's training did.
        target_stride=1 if spec.upsampling == "deconvolution" else OUTPUT_STRIDE,
        scale=recipe.random_scale,
    )
