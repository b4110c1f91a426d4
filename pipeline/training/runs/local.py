"""Training in a single process without Ray, for tests, benchmarks, and machines without a cluster."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.data.storage import Storage, join
from pipeline.training.config import TrainConfig
from pipeline.training.engine.trainer import NETWORK_FILE, Hooks, Trainer
from pipeline.training.engine.world import World
from pipeline.training.feature_maps import FeaturePrecompute
from pipeline.training.recipes.schema import StageName
from pipeline.training.runs.checkpoints import Phase, current_phase

__all__ = ["compute_maps", "run_phases", "train_here"]


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
