"""A worker's part of a training run, independent of Ray: stages, checkpoints, validation and the final network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from model.files.checkpoint import network_tensors, to_bytes
from model.networks.network import Network
from pipeline.data.storage import Storage, join
from pipeline.errors import IncompleteRun, WorkerPreempted
from pipeline.results.console import class_table
from pipeline.training.config import TrainConfig
from pipeline.training.engine.initial_weights import initial_network
from pipeline.training.engine.stages import build_optimizer, network_after_stage, set_modes, stage_forward, trainable
from pipeline.training.engine.step import Step, run_steps
from pipeline.training.engine.summaries import Examples, Summaries, ThroughputLogger
from pipeline.training.engine.validation import Validation, validate
from pipeline.training.engine.world import World
from pipeline.training.feature_maps import MapCache, map_caches
from pipeline.training.recipes.schema import STAGES, StageName
from pipeline.training.runs.checkpoints import Position, State, newest, restore_optimizer, save_state
from pipeline.training.samples.samplers import class_weights, sampler
from pipeline.training.samples.sources import Sources

__all__ = ["BEST_FILE", "NETWORK_FILE", "Hooks", "Trainer"]

NETWORK_FILE = "network.safetensors"
BEST_FILE = "best.safetensors"


@dataclass(frozen=True)
class Hooks:
    """Callbacks from a training worker to the process that started it; the defaults do nothing.

    Attributes:
        log: Callback that prints a line of progress; called on rank 0 only.
        heartbeat: Callback for a heartbeat; called after every step and every validated image.
        should_regroup: Callback that returns whether the workers must regroup, because a machine joins or is about to
            leave.
        check_lease: Callback that raises if another driver has taken over the run; called on rank 0 before a
            checkpoint, a network or the metrics are written.
    """

    log: Callable[[str], None] = lambda line: None
    heartbeat: Callable[[], None] = lambda: None
    should_regroup: Callable[[], bool] = lambda: False
    check_lease: Callable[[], None] = lambda: None


class Trainer:
    """One worker's part of a training run; all workers call `run`, and only rank 0 writes.

    Args:
        config: Configuration of the run.
        world: Rank of this worker, its device, and its communication with the other workers.
        storage: Storage for all reads and writes.
        hooks: Callbacks to the process that started the worker; None: no callbacks.
    """

    def __init__(self, config: TrainConfig, world: World, storage: Storage, hooks: Hooks | None = None) -> None:
        self._config = config
        self._recipe = config.recipe
        self._output = config.output
        self._world = world
        self._storage = storage
        self._hooks = hooks or Hooks()
        self._caches: dict[StageName, MapCache] = {}
        self._sources = Sources(config, storage)
        self._network, self._weights = initial_network(self._recipe, storage)
        self._network.to(world.device).to(memory_format=torch.channels_last)
        self._network.front_end.activation_checkpointing = config.recompute
        self._class_weights = class_weights(self._sources.all, self._network.spec, self._recipe.class_balance)

    def run(self, stages: Sequence[StageName]) -> Position:
        """Train from the newest checkpoint, or from the start, to the end of the last of `stages`.

        Args:
            stages: Names of the stages of this phase, in order.

        Returns:
            The start of the stage after `stages`, or the end of the recipe's last stage.

        Raises:
            IncompleteRun: If the workers do not find the same checkpoint.
            WorkerPreempted: If the workers must regroup; a checkpoint has been written.
            PipelineError: If a loss is not finite.
        """
        state = newest(self._storage, self._output, self._recipe.digest())
        # All workers must have looked for a checkpoint before rank 0 may write the next one.
        self._world.barrier()
        position = state.position if state else Position(self._recipe.stages[0], 0)
        if not self._world.all_equal([STAGES.index(position.stage), position.iteration]):
            raise IncompleteRun(f"workers found different checkpoints: another driver is writing to {self._output}")
        if state is None and "source" in self._weights:
            copied = ", ".join(self._weights.get("copied", ()))
            self._log(f"first weights: {self._weights['source']}" + (f", of which {copied}" if copied else ""))
        if state:
            self._restore(state)
            self._log(f"resuming stage {position.stage} at iteration {position.iteration}")
        # Workers that download weights arrive later than the others.
        self._world.barrier()
        place = self._place(position.stage, position.iteration)
        with Summaries(self._storage, self._output, place, active=self._world.rank == 0) as summaries:
            # Only the first stage resumes from a checkpoint's optimizer state; later ones start afresh.
            while position.stage in self._recipe.stages[: self._recipe.stages.index(stages[-1]) + 1]:
                position = self._run_stage(position, state, summaries)
                state = None
                # The next stage starts at iteration 0, so another number means the end of the last stage.
                if position.iteration:
                    break
        return position

    def _run_stage(self, position: Position, state: State | None, summaries: Summaries) -> Position:
        """Train a stage from `position` to its end, and return the start of the next stage or the end of the run."""
        stage = position.stage
        recipe = self._recipe
        config = self._recipe.stage(position.stage)
        set_modes(self._network, stage, recipe)
        named = trainable(self._network, stage, recipe)
        optimizer = build_optimizer(config, named, self._network.parts)
        restore_optimizer(optimizer, named, state.tensors if state else {})
        crop = "whole images" if config.crop is None else f"crops of {config.crop} pixels"
        self._log(f"stage {stage}: {config.iterations} iterations of {config.batch} {crop}")
        if position.iteration:
            # A checkpoint is written before the validation of its iteration, so the validation is still due.
            position = self._validate_if_due(position, summaries)
        throughput = ThroughputLogger(stage, config, len(self._network.spec.classes))
        cache = self._cache(stage)
        sample = sampler(recipe, stage, self._network.spec, self._sources.of(stage), cache)
        # Data, maps and compilation take a different time on each worker; all start the first step together.
        self._world.barrier()
        loaders = max(2, int(self._config.cpus_per_worker))
        for result in run_steps(self._step(stage, optimizer), sample, position.iteration, loaders):
            self._hooks.heartbeat()
            for line in throughput.lines(result):
                self._log(line)
            summaries.step(self._place(stage, result.iteration), result, throughput.images_per_second)
            done = result.iteration + 1
            if done == config.iterations:
                break
            # The checkpoint precedes the validation, which may take longer than a departing machine stays.
            if done % recipe.checkpoint_every == 0 or result.should_regroup:
                self._checkpoint(replace(position, iteration=done), optimizer, summaries)
            if result.should_regroup:
                # Further steps would be lost: the driver restarts the stage on the machines that stay.
                raise WorkerPreempted(f"the workers are to be regrouped; {stage} is saved at iteration {done}")
            position = self._validate_if_due(replace(position, iteration=done), summaries)
        return self._end_stage(position, optimizer, summaries)

    def _step(self, stage: StageName, optimizer: torch.optim.Optimizer) -> Step:
        forward = partial(stage_forward, self._network, stage, self._recipe)
        compiled = torch.compile(forward) if self._config.compile else None
        weights = self._class_weights
        should_regroup = self._hooks.should_regroup
        return Step(self._network, stage, self._recipe, optimizer, self._world, weights, should_regroup, compiled)

    def _cache(self, stage: StageName) -> MapCache | None:
        """Return the cache of the maps on which a stage learns; None for images."""
        kind = self._recipe.stage_input(stage)
        if kind == "images":
            return None
        # One cache serves the whole stage: the weights before its maps do not learn, and a digest reads all of them.
        if stage not in self._caches:
            self._caches[stage] = map_caches(self._config, self._storage, self._network)[kind]
        return self._caches[stage]

    def _end_stage(self, position: Position, optimizer: torch.optim.Optimizer, summaries: Summaries) -> Position:
        """Validate on the whole split, write the stage's network, and return the position that follows."""
        stage = position.stage
        validation = self._validate(stage, self._recipe.stage(stage).iterations, summaries, None)
        position = self._keep_best(position, stage, validation)
        metrics = {**position.metrics, stage: validation.summary()}
        self._write_network(f"stages/{stage}.safetensors", stage, metrics)
        # A checkpoint at iteration 0 of the next stage marks this stage as done.
        later = self._recipe.stages[self._recipe.stages.index(stage) + 1 :]
        if later:
            following = Position(later[0], 0, metrics, position.best)
            self._checkpoint(following, optimizer, summaries)
            return following
        if self._world.rank == 0:
            self._hooks.check_lease()
            summaries.upload()
            self._storage.write(join(self._output, "metrics.json"), json.dumps(metrics, indent=1).encode())
        # The final network is written last: its presence marks the run as complete.
        self._write_network(NETWORK_FILE, stage, metrics)
        return replace(position, iteration=self._recipe.stage(stage).iterations, metrics=metrics)

    def _checkpoint(self, position: Position, optimizer: torch.optim.Optimizer, summaries: Summaries) -> None:
        if self._world.rank == 0:
            self._hooks.check_lease()
            # Each stage starts with fresh momenta, so there are none to save at its start.
            named = trainable(self._network, position.stage, self._recipe) if position.iteration else []
            arguments = (position, self._network, optimizer, named, self._recipe.keep_checkpoints)
            # Upload the summaries first: a run that dies after the checkpoint resumes behind these steps, and never
            # repeats them.
            summaries.upload()
            save_state(self._storage, self._output, self._recipe.digest(), *arguments)
        # Without this barrier the others would wait in the next all-reduce, whose timeout a large upload may exceed.
        self._world.barrier()

    def _validate(self, stage: StageName, iteration: int, summaries: Summaries, limit: int | None) -> Validation:
        started = time.perf_counter()
        network = network_after_stage(self._network, stage)
        examples = Examples(self._sources.val, self._network.spec)

        def on_image(index: int, labels: Any) -> None:
            examples.add(index, labels)
            self._hooks.heartbeat()

        validation = validate(network, self._sources.val, self._world, self._cache(stage), limit, on_image)
        # Logged at the last step taken: the next number may belong to another stage, and with it to another event file.
        summaries.validation(self._place(stage, iteration) - 1, validation, examples)
        rows = [{"class_name": name, "iou": iou} for name, iou in zip(validation.classes, validation.iou, strict=True)]
        seconds = time.perf_counter() - started
        self._log(f"stage {stage}, iteration {iteration}: validation on {validation.images} images, {seconds:.0f} s")
        self._log(class_table(rows, validation.mean_iou, share=False))
        return validation

    def _validate_if_due(self, position: Position, summaries: Summaries) -> Position:
        stage = position.stage
        recipe = self._recipe
        if position.iteration % recipe.validate_every or recipe.validation_images == 0:
            return position
        validation = self._validate(stage, position.iteration, summaries, recipe.validation_images)
        return self._keep_best(position, stage, validation)

    def _keep_best(self, position: Position, stage: StageName, validation: Validation) -> Position:
        """Write the network if its mean IoU is the best so far; only scores on the whole split are comparable."""
        # Undefined, partial and lower scores keep the earlier network.
        score = validation.mean_iou
        if score is None or validation.images < len(self._sources.val) or score <= (position.best or 0.0):
            return position
        self._write_network(BEST_FILE, stage, {**position.metrics, stage: validation.summary()})
        self._world.barrier()
        return replace(position, best=score)

    def _restore(self, state: State) -> None:
        """Load the weights of a checkpoint into the network."""
        own = network_tensors(self._network)
        weights = {name: state.tensors[f"network.{name}"] for name in own}
        for module in self._network.modules_with_weights:
            module.load_state_dict({name: weights[name] for name in module.state_dict()})

    def _write_network(self, path: str, stage: StageName, metrics: Any) -> None:
        if self._world.rank == 0:
            self._hooks.check_lease()
            network = network_after_stage(self._network, stage)
            provenance = {"recipe": self._recipe.model_dump(mode="json"), "metrics": metrics, "weights": self._weights}
            described = Network(replace(network.spec, provenance=provenance), network.front_end, network.context)
            self._storage.write(join(self._output, path), to_bytes(described))

    def _place(self, stage: StageName, iteration: int) -> int:
        """Return an iteration of a stage as a step number counted over all stages."""
        before = STAGES[: STAGES.index(stage)]
        return iteration + sum(self._recipe.stage(name).iterations for name in before)

    def _log(self, line: str) -> None:
        if self._world.rank == 0:
            self._hooks.log(line)
