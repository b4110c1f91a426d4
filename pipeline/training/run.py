"""A submission of a training run: refuse what cannot work, claim the output, drive the phases to the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pipeline.data.storage import Storage, join
from pipeline.errors import (
    ConfigError,
    IncompleteRun,
    MachineLeaving,
    NoProgress,
    StorageError,
    StorageUnavailable,
)
from pipeline.training.config import TrainConfig
from pipeline.training.lease import Lease
from pipeline.training.phases import Phase, current_phase, newest_place
from pipeline.training.preparation.claim import claim, resume_or_prepare
from pipeline.training.sources import Sources
from pipeline.training.trainer import NETWORK_FILE

__all__ = ["check_data", "train"]

logger = logging.getLogger(__name__)
_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE = 60.0
RunPhase = Callable[[TrainConfig, Phase, Lease], None]


def train(
    config: TrainConfig, check: Callable[[TrainConfig], None], run_phase: RunPhase, storage: Storage | None = None
) -> bool:
    """Trains what is not trained yet.

    Args:
        config: what to do.
        check: refuses a cluster that is too small, before anything is written.
        run_phase: computes a phase's maps and runs its stages, from wherever the run stands.
        storage: for everything that this process reads and writes.

    Returns:
        False if the run had ended before.

    Raises:
        ConfigError: before any work, naming the value and the remedy.
        RunConflict: if the output belongs to another recipe or other data, or another driver is at work on it.
        IncompleteRun, StorageError: if workers are lost, or storage fails, too often.
    """
    storage = storage or Storage()
    request = config
    config, sources = check_data(request, storage)
    check(config)
    for note in sources.notes():
        logger.warning("%s", note)
    config = claim(request, config, sources, storage)
    if storage.exists(join(config.output, NETWORK_FILE)):
        return False
    with Lease(storage, config.output) as lease:
        while not storage.exists(join(config.output, NETWORK_FILE)):
            _persist(config, storage, lease, run_phase)
    return True


def _persist(config: TrainConfig, storage: Storage, lease: Lease, run_phase: RunPhase) -> None:
    """Runs the current phase, again after each loss, as long as checkpoints come between the losses."""
    failures, reached = 0, newest_place(storage, config.output)
    while True:
        try:
            # Workers of an earlier attempt that were cut off must not write once the next one is under way.
            lease.renew()
            run_phase(config, current_phase(config.recipe, storage, config.output), lease)
            return
        except NoProgress:
            # What is stuck may still hold the cluster: only the end of this process frees it.
            raise
        except MachineLeaving as error:
            logger.warning("%s", error)
        # A wrong configuration stays wrong, and a run taken over is another driver's.
        except (IncompleteRun, StorageError) as error:
            now = _reached(config, storage, reached)
            failures, reached = (failures + 1 if now == reached else 1), now
            if failures > config.max_failures:
                logger.error("giving up: no new checkpoint between %d failures", failures, exc_info=error)
                raise
            logger.warning("failure %d of at most %d in a row: %s", failures, config.max_failures, error)
            # What was lost, or does not answer, may need a moment to come back.
            time.sleep(min(failures * _PAUSE_SECONDS, _LONGEST_PAUSE))


def _reached(config: TrainConfig, storage: Storage, before: tuple[int, int] | None) -> tuple[int, int] | None:
    """Where the run stands; where it stood `before` if storage, which may be what fails, does not say."""
    try:
        return newest_place(storage, config.output)
    except StorageError:
        return before


def check_data(config: TrainConfig, storage: Storage) -> tuple[TrainConfig, Sources]:
    """Look at a sample of each split, so that a wrong label space does not cost the start of a cluster.

    Returns:
        The configuration with everything that is derived from the data, and the data.

    Raises:
        ConfigError: If the run cannot work; the message names value and remedy.
        RunConflict: If the output holds another run, or an image of this run was replaced.
    """
    recipe = config.recipe
    if not recipe.stages:
        raise ConfigError("every stage has zero iterations: give one some, such as --front-end.iterations 1000")
    if not {"front_end", "fine_tune"} & set(recipe.stages) and recipe.network.weights == "none":
        raise ConfigError(
            f"recipe {recipe.name} trains no front end: give --network.weights the network.safetensors of one"
        )
    try:
        weights = recipe.network.weights
        if weights not in ("none", "torchvision") and not storage.exists(weights):
            raise ConfigError(f"--network.weights {weights}: there is no such object")
        return resume_or_prepare(config, storage)
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise ConfigError(str(error)) from error
