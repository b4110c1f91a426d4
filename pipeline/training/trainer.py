"""A training run on one worker: stages in order, checkpoints, validation, the final network. Knows no Ray."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from model.checkpoint import network_tensors, to_bytes
from model.network import DilatedNetwork
from pipeline.data.label_spaces import label_space
from pipeline.data.storage import Storage, join
from pipeline.errors import IncompleteRun
from pipeline.results.console import class_table
from pipeline.training.checkpoints import Position, newest, restore_optimizer, save_state
from pipeline.training.class_balance import class_weights
from pipeline.training.dataset import LabelledImages
from pipeline.training.feature_cache import FeatureCache
from pipeline.training.initial_weights import initial_network
from pipeline.training.loop import run_steps
from pipeline.training.pace import Pace
from pipeline.training.recipe_schema import STAGES, Recipe, StageName
from pipeline.training.samples import Sample, feature_sample, image_sample
from pipeline.training.sampling import draw
from pipeline.training.schedule import build_optimizer
from pipeline.training.stages import set_modes, trainable, visible_network
from pipeline.training.summaries import Summaries
from pipeline.training.validation import Validation, validate
from pipeline.training.world import World

__all__ = ["NETWORK_FILE", "Trainer"]

logger = logging.getLogger(__name__)
NETWORK_FILE = "network.safetensors"


class Trainer:
    """One worker's part of a run. All workers call `run`; rank 0 alone writes.

    Args:
        recipe: what to compute.
        data: URI above `train` and `val`.
        output: URI for checkpoints, TensorBoard files and the network.
        world: this worker's place.
        storage: for all of them.
        say: prints a line of progress; called on rank 0.
    """

    def __init__(
        self, recipe: Recipe, data: str, output: str, world: World, storage: Storage, say: Callable[[str], None]
    ) -> None:
        self._recipe, self._output, self._world, self._storage = recipe, output, world, storage
        self._say = say if world.rank == 0 else lambda line: None
        space = label_space(recipe.label_space)
        self._train = LabelledImages(storage, data, "train", space)
        self._val = LabelledImages(storage, data, "val", space)
        self._network, self._weights = initial_network(recipe, storage)
        self._network.to(world.device)
        if not recipe.frozen_convolutions:
            self._network.to(memory_format=torch.channels_last)
        self._cache = self._feature_cache()
        self._weights_of_classes = class_weights(self._train, self._network.spec, recipe.class_balance)

    def run(self) -> dict[str, Any]:
        """Trains from the newest checkpoint, or from the start, to the end.

        Returns:
            Metrics of each stage.
        """
        state = newest(self._storage, self._output, self._recipe.digest())
        # Nobody may write a checkpoint before all have looked for one.
        self._world.wait()
        position = Position(self._stages()[0], 0) if state is None else state.position
        if not self._world.agree([STAGES.index(position.stage), position.iteration]):
            raise IncompleteRun(f"workers found different checkpoints: another driver is writing to {self._output}")
        tensors = {} if state is None else state.tensors
        if state is not None:
            self._restore(tensors)
            self._say(f"resuming stage {position.stage} at iteration {position.iteration}")
        # Whoever had to fetch weights or fill the cache comes later than the rest.
        self._world.wait()
        self._fill_cache()
        with Summaries(self._storage, self._output, active=self._world.rank == 0) as summaries:
            for stage in self._stages()[self._stages().index(position.stage) :]:
                position = self._run_stage(stage, position, tensors, summaries)
                tensors = {}
        self._finish(position.metrics)
        return dict(position.metrics)

    def _stages(self) -> list[StageName]:
        return [name for name in STAGES if self._recipe.stage(name).iterations]

    def _run_stage(self, stage: StageName, position: Position, tensors: Any, summaries: Summaries) -> Position:
        recipe, config = self._recipe, self._recipe.stage(stage)
        set_modes(self._network, stage, recipe)
        named = trainable(self._network, stage, recipe)
        optimizer = build_optimizer(config, named)
        restore_optimizer(optimizer, named, tensors)
        self._say(f"stage {stage}: {config.iterations} iterations of {config.batch} crops of {config.crop} pixels")
        pace = Pace(stage, config, len(self._network.spec.classes))
        sample = self._sampler(stage)
        first = position.iteration
        for result in run_steps(
            self._network, stage, recipe, optimizer, sample, first, self._world, self._weights_of_classes
        ):
            for line in pace.lines(result):
                self._say(line)
            summaries.step(self._place(stage, result.iteration), result, pace.images_per_second)
            done = result.iteration + 1
            if done < config.iterations and done % recipe.checkpoint_every == 0:
                self._checkpoint(Position(stage, done, position.metrics), optimizer, summaries)
            if done < config.iterations and done % recipe.validate_every == 0 and recipe.validation_images != 0:
                self._validate(stage, done, summaries, recipe.validation_images)
        validation = self._validate(stage, config.iterations, summaries, None)
        return self._end_stage(stage, position, validation, optimizer, summaries)

    def _end_stage(
        self,
        stage: StageName,
        position: Position,
        validation: Validation,
        optimizer: torch.optim.Optimizer,
        summaries: Summaries,
    ) -> Position:
        metrics = {**position.metrics, stage: validation.summary()}
        self._write_network(f"stages/{stage}.safetensors", visible_network(self._network, stage), metrics)
        later = self._stages()[self._stages().index(stage) + 1 :]
        following = Position(later[0] if later else stage, 0, metrics)
        if later:
            self._checkpoint(following, optimizer, summaries)
        return following

    def _checkpoint(self, position: Position, optimizer: torch.optim.Optimizer, summaries: Summaries) -> None:
        if self._world.rank == 0:
            # A stage begins with fresh momenta: at its start there are none to save.
            named = trainable(self._network, position.stage, self._recipe) if position.iteration else []
            arguments = (position, self._network, optimizer, named)
            save_state(self._storage, self._output, self._recipe.digest(), *arguments)
            summaries.upload()
        # The others would else wait in the next step's sum, which gives up sooner than a large upload may take.
        self._world.wait()

    def _validate(self, stage: StageName, iteration: int, summaries: Summaries, limit: int | None) -> Validation:
        started = time.perf_counter()
        network = visible_network(self._network, stage)
        validation = validate(network, self._val, self._world, self._cache, limit)
        summaries.validation(self._place(stage, iteration), validation)
        rows = [{"class_name": name, "iou": iou} for name, iou in zip(validation.classes, validation.iou, strict=True)]
        seconds = time.perf_counter() - started
        self._say(f"stage {stage}, iteration {iteration}: validation on {validation.images} images, {seconds:.0f} s")
        self._say(class_table(rows, validation.mean_iou, share=False))
        return validation

    def _sampler(self, stage: StageName) -> Callable[[int, int], Sample]:
        recipe, config, cache = self._recipe, self._recipe.stage(stage), self._cache

        def sample(iteration: int, place: int) -> Sample:
            chosen = draw(recipe.seed, stage, iteration, place, batch=config.batch, images=len(self._train))
            if not recipe.mirror:
                chosen = replace(chosen, mirror=False)
            uri = self._train.pairs[chosen.index].image_uri
            if cache is not None:
                maps, label = cache.load(self._train, chosen.index, chosen.mirror), self._train.label(chosen.index)
                return feature_sample(maps, label, chosen, cells=config.cells, uri=uri)
            image, label = self._train.pair(chosen.index)
            return image_sample(
                image,
                label,
                chosen,
                cells=config.cells,
                mean_bgr=recipe.mean_bgr,
                ignore_label=self._network.spec.ignore_label,
                uri=uri,
            )

        return sample

    def _feature_cache(self) -> FeatureCache | None:
        if not self._recipe.frozen_convolutions:
            return None
        return FeatureCache(self._storage, self._output, self._network.front_end, self._recipe.mean_bgr)

    def _fill_cache(self) -> None:
        if self._cache is None:
            return
        started = time.monotonic()

        def on_map(done: int, total: int) -> None:
            if done % 20 == 0 or done == total:
                left = (time.monotonic() - started) / done * (total - done)
                self._say(f"conv5_3 maps: {done}/{total}, {left:.0f} s left")

        share = (self._world.rank, self._world.size)
        self._network.eval()
        self._cache.fill(self._val, [False], share, on_map)
        self._cache.fill(self._train, [False, True] if self._recipe.mirror else [False], share, on_map)
        self._world.wait()

    def _restore(self, tensors: Any) -> None:
        own = network_tensors(self._network)
        weights = {name: tensors[f"network.{name}"] for name in own}
        for module in (self._network.front_end, self._network.context):
            if module is not None:
                module.load_state_dict({name: weights[name] for name in module.state_dict()})

    def _place(self, stage: StageName, iteration: int) -> int:
        before = STAGES[: STAGES.index(stage)]
        return iteration + sum(self._recipe.stage(name).iterations for name in before)

    def _write_network(self, path: str, network: DilatedNetwork, metrics: Any) -> None:
        if self._world.rank == 0:
            provenance = {"recipe": self._recipe.model_dump(mode="json"), "metrics": metrics, "weights": self._weights}
            described = DilatedNetwork(replace(network.spec, provenance=provenance), network.front_end, network.context)
            self._storage.write(join(self._output, path), to_bytes(described))

    def _finish(self, metrics: Any) -> None:
        last = self._stages()[-1]
        if self._world.rank == 0:
            self._storage.write(join(self._output, "metrics.json"), json.dumps(metrics, indent=1).encode())
        # The network comes last: whoever finds it knows that the run has ended.
        self._write_network(NETWORK_FILE, visible_network(self._network, last), metrics)
