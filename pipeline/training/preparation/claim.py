"""The claim of a run on its output: `recipe.json` with the request, and all that was derived from the data for it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, ObjectMissing, RunConflict, StorageError, StorageUnavailable
from pipeline.training.config import FrozenData, TrainConfig
from pipeline.training.engine.trainer import NETWORK_FILE
from pipeline.training.preparation.derive import derive_recipe, sample_images
from pipeline.training.preparation.division import check_unchanged, read_list, write_list
from pipeline.training.preparation.own_classes import resolve_classes
from pipeline.training.recipes.schema import OwnClasses, Recipe
from pipeline.training.samples.sources import SPLITS, Sources

__all__ = ["claim", "resume_or_prepare"]

RECIPE_FILE = "recipe.json"


def resume_or_prepare(config: TrainConfig, storage: Storage) -> tuple[TrainConfig, Sources]:
    """Return a run's configuration and data: as frozen where the run has begun, else as they are now.

    Raises:
        ConfigError: If the data cannot be trained on.
        RunConflict: If the output holds another run, or an image of this run was replaced.
    """
    begun = _read_claim(config, storage)
    if begun is None or "request" not in begun:
        # A run of an earlier version froze no lists: `claim` compares the data with it.
        return _prepare(config, storage)
    _refuse_other(config, begun, _request(config))
    try:
        classes = tuple(each and OwnClasses(**each) for each in begun["data_classes"])
        recipe = Recipe(**begun["recipe"])
        frozen = FrozenData(lists=begun["lists"])
    except (ValidationError, KeyError, TypeError) as error:
        raise RunConflict(f"{_uri(config)} cannot be read by this version: {error}; choose another --output") from error
    recipe = recipe.with_cadence(config.recipe)
    config = config.model_copy(update={"recipe": recipe, "frozen": frozen, "data_classes": classes})
    try:
        # A run that has ended needs no image any more.
        if not storage.exists(join(config.output, NETWORK_FILE)):
            for path in frozen.lists.values():
                check_unchanged(storage, read_list(storage, config.output, path))
        return config, Sources(config, storage)
    except ObjectMissing as error:
        raise RunConflict(f"{error}: this run cannot go on without it; choose another --output") from error


def claim(request: TrainConfig, config: TrainConfig, sources: Sources, storage: Storage) -> TrainConfig:
    """Make the output this run's own, or find that it is already.

    Args:
        request: Configuration as the user gave it.
        config: Configuration with everything that is derived from the data.
        sources: Data of the run.
        storage: Storage of the output.

    Returns:
        The configuration with which the run goes on: its lists of images are frozen.

    Raises:
        ConfigError: If the output cannot be written.
        RunConflict: If it belongs to another run.
    """
    if config.frozen is not None:
        return config
    try:
        storage.check_writable(config.output)
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise ConfigError(f"the output {config.output} cannot be written: {error}") from error
    begun = _read_claim(config, storage)
    if begun is not None and "request" not in begun:
        _refuse_other(config, begun, _earlier_claim(config, sources))
        return config
    lists = {
        split: write_list(storage, config.output, split, [(each.data, each.layout, each.pairs) for each in found])
        for split, found in sources.splits.items()
    }
    own = {
        **_earlier_claim(config, sources),
        "request": _request(request),
        "lists": lists,
        "data_classes": [each and each.model_dump(mode="json") for each in config.data_classes],
    }
    if storage.write_once(_uri(config), json.dumps(own, indent=1).encode()):
        return config.model_copy(update={"frozen": FrozenData(lists=lists)})
    # Another driver was faster: what it froze counts, if it was asked for the same.
    return resume_or_prepare(request, storage)[0]


def _prepare(config: TrainConfig, storage: Storage) -> tuple[TrainConfig, Sources]:
    config = resolve_classes(config, storage)
    space = config.recipe.space()
    sources = Sources(config, storage)
    samples = []
    for split, images in zip(SPLITS, (sources.train, sources.working_val, sources.all), strict=True):
        if split in sources.splits:
            # A dry run reports all that is wrong with the data at its end.
            sample = sample_images(images, space.ignore_label, tolerant=config.dry_run)
            if sample.ignored:
                raise ConfigError(
                    f"{images.pairs[0].label_uri} and those after it hold no pixel of any class of label space "
                    f"{space.name}: choose the one that the labels are in, with --label-space or --classes"
                )
            samples.append(sample)
    recipe = derive_recipe(config.recipe, samples[0], len(sources.train), config.epochs, storage)
    # Derived numbers change neither the data nor their working size.
    return config.model_copy(update={"recipe": recipe}), sources


def _request(config: TrainConfig) -> dict[str, Any]:
    """Return what the user asked for, before anything is derived; another request is another run."""
    return {
        **_data_and_recipe(config),
        "classes": config.classes,
        "layout": config.layout,
        "val_fraction": config.val_fraction,
        "val_group": config.val_group,
        "epochs": config.epochs,
    }


def _earlier_claim(config: TrainConfig, sources: Sources) -> dict[str, Any]:
    """Return what `recipe.json` has held since the first version."""
    images = {"train": len(sources.all), "val": len(sources.val), "digest": sources.digest()}
    return {**_data_and_recipe(config), "images": images}


def _data_and_recipe(config: TrainConfig) -> dict[str, Any]:
    return {
        "data": config.data[0] if len(config.data) == 1 else list(config.data),
        "extra_data": config.extra_data,
        "recipe": config.recipe.model_dump(mode="json"),
        "digest": config.recipe.digest(),
    }


def _uri(config: TrainConfig) -> str:
    return join(config.output, RECIPE_FILE)


def _read_claim(config: TrainConfig, storage: Storage) -> dict[str, Any] | None:
    try:
        begun = json.loads(storage.read(_uri(config)))
    except ObjectMissing:
        return None
    except (ValueError, RecursionError) as error:
        raise RunConflict(f"{_uri(config)} is not JSON: {error}; choose another --output") from error
    if not isinstance(begun, dict) or not isinstance(begun.get("request", {}), dict):
        raise RunConflict(f"{_uri(config)} was not written by a training run: choose another --output")
    return begun


def _refuse_other(config: TrainConfig, begun: dict[str, Any], own: dict[str, Any]) -> None:
    """Compare a claim with the one that lies in the output.

    Raises:
        RunConflict: If that is another run's; the message says what differs.
    """
    other = begun.get("request", begun)
    # How often to save and validate may change, and so recipes are compared by their digests.
    if all(other.get(key) == value for key, value in own.items() if key != "recipe"):
        return
    before, now = ({**each.get("recipe", {}), **each, "recipe": None, "digest": None} for each in (other, own))
    raise RunConflict(
        f"{config.output} holds another training run: {'; '.join(_differences(before, now))}. Choose another --output, "
        "or repeat the first command"
    )


def _differences(before: object, now: object, path: str = "") -> list[str]:
    """Return the leaves of two trees that differ, as `path was …, now …`."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        pairs = [_differences(before.get(key), now.get(key), f"{path}.{key}" if path else key) for key in keys]
        return [difference for each in pairs for difference in each]
    return [] if before == now else [f"{path} was {before!r}, now {now!r}"]
