"""Driver of a training run: checks, the claim of the output, and all phases with retries; the same in one process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from pipeline.data.storage import Storage, join
from pipeline.errors import (
    ConfigError,
    IncompleteRun,
    NoProgress,
    StorageError,
    StorageUnavailable,
    WorkerPreempted,
)
from pipeline.training.config import TrainConfig
from pipeline.training.engine.trainer import NETWORK_FILE, Hooks, Trainer
from pipeline.training.engine.world import World
from pipeline.training.feature_maps import FeaturePrecompute
from pipeline.training.preparation.claim import claim, resume_or_prepare
from pipeline.training.recipes.schema import StageName
from pipeline.training.runs.checkpoints import Phase, current_phase, newest_place
from pipeline.training.runs.lease import Lease
from pipeline.training.samples.sources import Sources

__all__ = ["check_data", "compute_maps", "run_phases", "train", "train_here"]

logger = logging.getLogger(__name__)
# Pause before a retry: this many seconds for each failure in a row, up to a limit.
_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE = 60.0
# Function that runs one phase under a lease.
RunPhase = Callable[[TrainConfig, Phase, Lease], None]


def train(
    config: TrainConfig, check: Callable[[TrainConfig], None], run_phase: RunPhase, storage: Storage | None = None
) -> bool:
    """Start a training run, or resume it from its newest checkpoint, and drive it to its end.

    Args:
        config: Configuration as the user gave it.
        check: Function that raises ConfigError if the cluster is too small; called before anything is written.
        run_phase: Function that computes the maps of a phase and runs its stages from the newest checkpoint.
        storage: Storage from which this process reads and to which it writes; None: default settings.

    Returns:
        False if the run had ended before.

    Raises:
        ConfigError: If the run cannot work, before any work starts; the message names the value and the remedy.
        RunConflict: If the output belongs to another recipe or other data, or another driver works on it.
        IncompleteRun: If workers are lost too often.
        StorageError: If storage fails too often.
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
            _run_with_retries(config, storage, lease, run_phase)
    return True


def _run_with_retries(config: TrainConfig, storage: Storage, lease: Lease, run_phase: RunPhase) -> None:
    """Run the current phase, and retry it after failures as long as new checkpoints appear between them."""
    failures = 0
    reached = newest_place(storage, config.output)
    while True:
        try:
            # A new number locks out workers of an earlier attempt that lost contact but may still write.
            lease.renew()
            run_phase(config, current_phase(config.recipe, storage, config.output), lease)
            return
        except NoProgress:
            # Stuck tasks may still hold resources of the cluster; only the end of this process frees them.
            raise
        except WorkerPreempted as error:
            logger.warning("%s", error)
        # Not retried: ConfigError stays wrong, and RunConflict means that another driver has taken over the run.
        except (IncompleteRun, StorageError) as error:
            # Only failures without progress add up.
            now = _reached(config, storage, reached)
            failures = failures + 1 if now == reached else 1
            reached = now
            if failures > config.max_failures:
                logger.error("giving up: no new checkpoint between %d failures", failures, exc_info=error)
                raise
            logger.warning("failure %d of at most %d in a row: %s", failures, config.max_failures, error)
            # Lost machines and failing storage may need some time to recover.
            time.sleep(min(failures * _PAUSE_SECONDS, _LONGEST_PAUSE))


def _reached(config: TrainConfig, storage: Storage, before: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return stage number and iteration of the newest checkpoint, or `before` if storage fails."""
    try:
        return newest_place(storage, config.output)
    except StorageError:
        return before


def check_data(config: TrainConfig, storage: Storage) -> tuple[TrainConfig, Sources]:
    """Check the recipe and a sample of each split before a cluster starts, to find a wrong label space early.

    Returns:
        The configuration with everything that is derived from the data, and the data sets.

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
    # Storage that does not answer is no error of the configuration: a later attempt may succeed.
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise ConfigError(str(error)) from error


def train_here(config: TrainConfig, storage: Storage, hooks: Hooks | None = None, world: World | None = None) -> None:
    """Train from the newest checkpoint to the end as the only worker; unlike a job, this claims no output.

    Args:
        config: Configuration of the run.
        storage: Storage for all reads and writes.
        hooks: Callbacks of the worker; None: no callbacks.
        world: Device of the worker; None: the CPU.
    """
    alone = world or World()
    run_phases(config, storage, alone, lambda stages: Trainer(config, alone, storage, hooks).run(stages))


def run_phases(
    config: TrainConfig, storage: Storage, world: World, run_stages: Callable[[tuple[StageName, ...]], object]
) -> None:
    """Run all phases until the final network exists: maps in this process, stages by `run_stages`."""
    while not storage.exists(join(config.output, NETWORK_FILE)):
        phase = current_phase(config.recipe, storage, config.output)
        compute_maps(config, phase, storage, world)
        run_stages(phase.stages)


def compute_maps(config: TrainConfig, phase: Phase, storage: Storage, world: World) -> None:
    """Compute the missing maps of a phase on this worker's device."""
    for kind in phase.feature_maps:
        work = FeaturePrecompute(config, kind, storage, world.device)
        work.compute(work.missing())
