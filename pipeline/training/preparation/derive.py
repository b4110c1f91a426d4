"""Numbers of a recipe that are derived from the data before a run begins: mean, crop, widths and numbers of steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import CheckpointError
from model.files.checkpoint import from_bytes
from model.networks.network import Network
from model.prediction.geometry import Footprint
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError
from pipeline.training.engine.initial_weights import is_network
from pipeline.training.recipes.schema import DERIVE, STAGES, Recipe, StageName
from pipeline.training.samples.sources import Images, evenly_spread

__all__ = ["SplitSample", "derive_recipe", "sample_images"]

_SAMPLE = 32  # images of a split that are read before a run begins
_THREADS = 4
_NARROW = 0.125  # share of VGG-16's widths that two cores train in an evening
_NARROW_FC = 96  # channels of its fc6 and fc7
# About 30 passes, but no fewer steps than a network from nothing needs, and no more than an evening has.
_EPOCHS = 30
_FEWEST_STEPS = 600
_MOST_STEPS = 6000
_JOINT_SHARE = 0.2  # steps of a later stage, as a share of the front end's
# Pixels inside a crop, without its margin: more costs memory, less is mostly margin.
_SMALLEST_INSIDE = 128
_LARGEST_INSIDE = 480


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitSample:
    """Findings in a bounded sample of a split.

    Attributes:
        mean_bgr: Mean of the pixels (0–255), every image weighing the same.
        sizes: Height and width of each image at the working size, pixels.
        ignored: Whether no sampled label has a pixel of any class.
    """

    mean_bgr: tuple[float, float, float]
    sizes: Sequence[tuple[int, int]]
    ignored: bool


def sample_images(images: Images, ignore_label: int, *, tolerant: bool = False) -> SplitSample:
    """Read images and labels evenly spread over a split.

    Args:
        images: Images of the split at the working size.
        ignore_label: Class id of pixels that count nowhere.
        tolerant: Whether pairs that cannot be trained on are skipped, as long as one is left.

    Raises:
        ConfigError: If an image or label cannot be decoded, their sizes differ, or a label has an unknown value.
    """
    chosen = evenly_spread(len(images), _SAMPLE)

    def look(index: int) -> tuple[NDArray[np.float64], tuple[int, int], bool] | ConfigError:
        try:
            image, label = images.pair(index)
        except ConfigError as error:
            return error
        mean = image.reshape(-1, 3).mean(axis=0)[::-1]
        return mean, (label.shape[0], label.shape[1]), bool((label == ignore_label).all())

    with ThreadPoolExecutor(_THREADS) as pool:
        looks = list(pool.map(look, chosen))
    seen = [look for look in looks if not isinstance(look, ConfigError)]
    failed = next((look for look in looks if isinstance(look, ConfigError)), None)
    if failed is not None and not (tolerant and seen):
        raise failed
    # A tenth is as exact as a sample is, and reads well on a command line.
    blue, green, red = (round(float(value), 1) for value in np.mean([mean for mean, _, _ in seen], axis=0))
    return SplitSample((blue, green, red), [size for _, size, _ in seen], all(ignored for _, _, ignored in seen))


def derive_recipe(recipe: Recipe, sample: SplitSample, images: int, epochs: float | None, storage: Storage) -> Recipe:
    """Return the recipe without anything left to derive; numbers that were given stay as they are.

    Args:
        recipe: Recipe with its classes.
        sample: Findings in a sample of the training images.
        images: Number of training images.
        epochs: Passes over them in the front end's stage; None: as many as make 600 to 6,000 steps, about 30.
        storage: Storage from which the first weights are read.

    Raises:
        ConfigError: If the first weights cannot be read or do not fit, or `epochs` has no effect on the recipe.
    """
    skipped = recipe.front_end.iterations == 0 and recipe.joint.iterations == DERIVE
    if epochs is not None and recipe.front_end.iterations != DERIVE and not skipped:
        effect = f"--epochs {epochs:g} has no effect: the front end has {recipe.front_end.iterations} iterations"
        if not recipe.name.startswith("custom"):
            raise ConfigError(f"{effect} in recipe {recipe.name}: set --front-end.iterations instead")
        logger.warning("%s", effect)
    if not recipe.derived:
        return recipe
    changes: dict[str, Any] = {}
    if recipe.network.scale == DERIVE or DERIVE in recipe.mean_bgr:
        changes = _from_weights(recipe, _read_network(recipe, storage), sample)
    front_end_steps = _front_end_steps(recipe, images, epochs)
    for name in STAGES:
        changes[name] = _derive_stage(recipe, name, front_end_steps, sample)
    return recipe.model_copy(update=changes)


def _from_weights(recipe: Recipe, network: Network | None, sample: SplitSample) -> dict[str, Any]:
    """Return mean and widths: those of the network to go on from, else the sample's mean and a narrow network."""
    changes: dict[str, Any] = {}
    if DERIVE in recipe.mean_bgr:
        changes["mean_bgr"] = sample.mean_bgr if network is None else network.spec.mean_bgr
    if recipe.network.scale == DERIVE:
        given = recipe.network.fc
        adopted: dict[str, Any] = {"scale": _NARROW, "fc": given or _NARROW_FC}
        if network is not None:
            widths = network.front_end.widths
            if given not in (None, widths.fc6):
                raise ConfigError(f"--network.fc {given} is not {widths.fc6}, that of --network.weights: leave it out")
            adopted = {
                "layer_widths": (*widths.conv, widths.fc6, widths.fc7),
                "family": network.spec.family,
                "family_options": dict(network.spec.family_options),
            }
        changes["network"] = recipe.network.model_copy(update=adopted)
    return changes


def _read_network(recipe: Recipe, storage: Storage) -> Network | None:
    """Return the network that --network.weights names; None if it names other weights or none."""
    uri = recipe.network.weights
    if uri == "torchvision" and recipe.network.scale == DERIVE:
        raise ConfigError(
            f"recipe {recipe.name} is narrower than torchvision's VGG-16: choose custom_vgg16, or --network.scale 1"
        )
    if uri in ("none", "torchvision"):
        return None
    data = storage.read(uri)
    try:
        return from_bytes(data) if is_network(data) else None
    except CheckpointError as error:
        raise ConfigError(f"--network.weights {uri} cannot be used: {error}") from error


def _front_end_steps(recipe: Recipe, images: int, epochs: float | None) -> int:
    """Return the steps of the front end; where it is skipped, those that it would take, for the stages after it."""
    stage = recipe.front_end
    if stage.iterations > 0:
        return stage.iterations
    if epochs is not None:
        return max(1, math.ceil(epochs * images / stage.batch))
    return min(_MOST_STEPS, max(_FEWEST_STEPS, math.ceil(_EPOCHS * images / stage.batch)))


def _derive_stage(recipe: Recipe, name: StageName, front_end_steps: int, sample: SplitSample) -> Any:
    stage = recipe.stage(name)
    changes: dict[str, Any] = {}
    if stage.iterations == DERIVE:
        share = 1.0 if name == "front_end" else _JOINT_SHARE
        changes["iterations"] = max(1, math.ceil(share * front_end_steps))
    if stage.crop == DERIVE:
        changes["crop"] = _crop(sample.sizes, recipe.footprint())
    return stage.model_copy(update=changes)


def _crop(sizes: Sequence[tuple[int, int]], footprint: Footprint) -> int:
    """Return the side of a crop whose inside, without the margin, holds the shorter side of most images."""
    shorter = float(np.median([min(size) for size in sizes]))
    inside = min(_LARGEST_INSIDE, max(_SMALLEST_INSIDE, shorter))
    return math.ceil(inside / footprint.stride) * footprint.stride + 2 * footprint.crop_margin
