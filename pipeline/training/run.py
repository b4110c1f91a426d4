"""A submission of a training run: refuse what cannot work, claim the output, start the workers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from pipeline.data.label_spaces import label_space
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, RunConflict, StorageError
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import LabelledImages
from pipeline.training.recipe_schema import STAGES, Recipe
from pipeline.training.trainer import NETWORK_FILE

__all__ = ["train"]

logger = logging.getLogger(__name__)
_LOOKED_AT = 8


def train(
    config: TrainConfig,
    check: Callable[[TrainConfig], None],
    run_workers: Callable[[TrainConfig], None],
    storage: Storage | None = None,
) -> bool:
    """Trains what is not trained yet.

    Args:
        config: what to do.
        check: refuses a cluster that is too small, before anything is written.
        run_workers: does the work.
        storage: for everything that this process reads and writes.

    Returns:
        False if the run had ended before.

    Raises:
        ConfigError: before any work, naming the value and the remedy.
        RunConflict: if the output belongs to another recipe.
    """
    storage = storage or Storage()
    _check_data(config.recipe, config.data, storage)
    check(config)
    _claim(config.recipe, config.data, config.output, storage)
    if storage.exists(join(config.output, NETWORK_FILE)):
        return False
    run_workers(config)
    return True


def _check_data(recipe: Recipe, data: str, storage: Storage) -> None:
    if not any(recipe.stage(name).iterations for name in STAGES):
        raise ConfigError("every stage has zero iterations: give one some, such as --front-end.iterations 1000")
    if not recipe.front_end.iterations and recipe.network.weights == "none":
        raise ConfigError(
            f"recipe {recipe.name} trains no front end: give --network.weights the network.safetensors of one"
        )
    space = label_space(recipe.label_space)
    try:
        for split in ("train", "val"):
            images = LabelledImages(storage, data, split, space)
            # A few pairs are decoded here: a wrong label space should not cost the start of a cluster.
            images.pair(0)
            if all((images.label(index) == space.ignore_label).all() for index in range(min(_LOOKED_AT, len(images)))):
                raise ConfigError(
                    f"{images.pairs[0].label_uri} and those after it hold no pixel of any class of label space "
                    f"{space.name}: choose the one that the labels are in, with --label-space"
                )
        weights = recipe.network.weights
        if weights not in ("none", "torchvision") and not storage.exists(weights):
            raise ConfigError(f"--network.weights {weights}: there is no such object")
    except StorageError as error:
        raise ConfigError(str(error)) from error


def _claim(recipe: Recipe, data: str, output: str, storage: Storage) -> None:
    try:
        storage.check_writable(output)
    except StorageError as error:
        raise ConfigError(f"the output {output} cannot be written: {error}") from error
    own: dict[str, Any] = {"data": data, "recipe": recipe.model_dump(mode="json"), "digest": recipe.digest()}
    uri = join(output, "recipe.json")
    if storage.write_once(uri, json.dumps(own, indent=1).encode()):
        return
    other = json.loads(storage.read(uri))
    if other.get("digest") != recipe.digest() or other.get("data") != data:
        differences = _differences(
            {"data": other.get("data"), **other.get("recipe", {})}, {"data": data, **own["recipe"]}
        )
        raise RunConflict(
            f"{output} holds another training run: {'; '.join(differences)}. Choose another --output, or repeat the "
            "first command"
        )


def _differences(before: object, now: object, path: str = "") -> list[str]:
    """Leaves of two trees that differ, as `path was …, now …`."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        pairs = [_differences(before.get(key), now.get(key), f"{path}.{key}" if path else key) for key in keys]
        return [difference for each in pairs for difference in each]
    return [] if before == now else [f"{path} was {before!r}, now {now!r}"]
