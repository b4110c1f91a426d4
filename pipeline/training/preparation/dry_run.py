"""Dry run before training: a survey of the data, a drawn batch of each stage, estimates of time and memory."""

from __future__ import annotations

import base64
import io
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model.networks.network import Network
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError
from pipeline.results.report.contact_sheet import Panel, paint_sheet
from pipeline.results.report.page import hex_colour, page_environment
from pipeline.training.config import TrainConfig
from pipeline.training.engine.initial_weights import initial_network
from pipeline.training.engine.stages import build_optimizer, set_modes, trainable
from pipeline.training.engine.step import Step
from pipeline.training.engine.world import World
from pipeline.training.feature_maps import MapCache
from pipeline.training.preparation.survey import Survey, survey_data
from pipeline.training.recipes.schema import StageName
from pipeline.training.samples.crops import Sample, sample_params
from pipeline.training.samples.samplers import class_weights, sample_rule, sampler
from pipeline.training.samples.sources import Images, Sources

__all__ = ["StagePicture", "dry_run", "dry_run_page"]


@dataclass(frozen=True)
class StagePicture:
    """One stage as drawn and measured.

    Attributes:
        name: Name of the stage.
        estimate: Sentence about its time and memory.
        picture: Batch with labels and legend.
    """

    name: str
    estimate: str
    picture: Image.Image


def dry_run_page(title: str, facts: Sequence[str], survey: Survey, stages: Sequence[StagePicture]) -> bytes:
    """Return the page as HTML.

    Args:
        title: Name of the recipe and the data.
        facts: Sentences about the whole run.
        survey: Survey of the data.
        stages: Stages in order.
    """
    template = page_environment("pipeline.training.preparation").get_template("dry_run.html")
    pictures = [(stage.name, stage.estimate, _data_uri(stage.picture)) for stage in stages]
    return template.render(
        title=title,
        facts=facts,
        survey=survey,
        rows=[(each, hex_colour(each.color)) for each in survey.classes],
        warnings=list(survey.warnings()),
        problems=sorted(survey.problems.items()),
        stages=pictures,
    ).encode()


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


# Most samples of a stage that are drawn.
_MOST_DRAWN = 8
# Seconds between two samples of the resident memory of the process.
_POLL_SECONDS = 0.01


def dry_run(config: TrainConfig, storage: Storage, device: torch.device | None = None) -> Iterator[str]:
    """Yield survey, first losses and estimates as text; write pictures and a page below `<output>/dry-run` only.

    A step is measured on one worker's micro-batch and multiplied. The estimate omits the time that workers wait for
    each other, for data and for validation.

    Args:
        config: Configuration of the run.
        storage: Storage of the data and the output.
        device: Device on which a step is measured; None: the CPU.

    Raises:
        ConfigError: If pairs cannot be trained on; raised at the end, after everything else.
    """
    sources = Sources(config, storage)
    space = config.recipe.space()
    survey = survey_data(sources.own_train, sources.val, space, space.ignore_label, sources.notes())
    yield "\n".join([survey.table(), survey.sizes(), *survey.warnings()])
    # Pairs that cannot be trained on are reported at the end; all others can be drawn.
    sources.leave_out(survey.problems)
    network, _ = initial_network(config.recipe, storage)
    network.to(device or torch.device("cpu")).to(memory_format=torch.channels_last)
    network.front_end.activation_checkpointing = config.recompute
    weights = class_weights(sources.all, network.spec, config.recipe.class_balance)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    headline = (
        f"{config.recipe.name}: {parameters / 1e6:.2f} million parameters, {len(sources.all)} images for "
        f"training, {len(sources.val)} for validation"
    )
    yield headline
    stages: list[StagePicture] = []
    total = 0.0
    for stage in config.recipe.stages:
        images = sources.of(stage)
        cache = _Computed.of(config, stage, storage, network)
        sample = sampler(config.recipe, stage, network.spec, images, cache)
        # Rank 0 has the largest share of a batch, and its first samples are drawn.
        share = World(0, config.workers).share(config.recipe.stage(stage).batch)
        batch = [sample(0, position) for position in share[: max(_MOST_DRAWN, 1)]]
        picture = _picture(config, stage, batch, images, network)
        storage.write(join(config.output, "dry-run", f"{stage}.png"), _png(picture))
        # A step is measured on one micro-batch only.
        few = batch[: min(len(batch), config.recipe.stage(stage).micro_batch)]
        seconds, estimate = _estimate(config, stage, len(share), _measure(config, stage, network, few, weights))
        total += seconds
        stages.append(StagePicture(stage, estimate, picture))
        yield estimate
    facts = [headline, survey.sizes(), f"all stages: about {_hours(total)}, without validation"]
    yield facts[-1]
    title = f"{config.recipe.name} on {', '.join(config.data)}"
    storage.write(join(config.output, "dry-run", "index.html"), dry_run_page(title, facts, survey, stages))
    if survey.problems:
        raise ConfigError(
            f"training cannot use {len(survey.problems)} pairs: {next(iter(survey.problems.values()))}; fix or remove "
            f"them, {join(config.output, 'dry-run', 'index.html')} lists all"
        )


@dataclass(frozen=True)
class _Measured:
    """Measurement of one step: number of samples, seconds, loss, and most bytes in use."""

    samples: int
    seconds: float
    loss: float
    bytes: int


def _measure(
    config: TrainConfig, stage: StageName, network: Network, batch: list[Sample], weights: Tensor | None
) -> _Measured:
    """Measure the second of two steps, because the first one includes the search for kernels.

    The weights are restored afterwards. The loss is that of the first step, before any update.
    """
    device = next(network.parameters()).device
    set_modes(network, stage, config.recipe)
    named = trainable(network, stage, config.recipe)
    optimizer = build_optimizer(config.recipe.stage(stage), named, network.parts)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step = Step(network, stage, config.recipe, optimizer, World(device=device), weights)
    batches = step.batches(batch)
    loss, _ = step(batches, 0)
    with _PeakMemory(device) as memory:
        started = time.perf_counter()
        step(batches, 0)
        seconds = time.perf_counter() - started
    network.load_state_dict(before)
    return _Measured(len(batch), seconds, loss, memory.peak)


def _estimate(config: TrainConfig, stage: StageName, share: int, measured: _Measured) -> tuple[float, str]:
    """Return the seconds of a stage, and a sentence about its time and memory.

    Args:
        config: Configuration of the run.
        stage: Name of the stage.
        share: Number of samples per step on one worker.
        measured: Measurement of one micro-batch.
    """
    settings = config.recipe.stage(stage)
    # A worker accumulates its share in micro-batches of the measured size.
    seconds = measured.seconds * math.ceil(share / measured.samples)
    crop = "whole images" if settings.crop is None else f"crops of {settings.crop} pixels"
    whole = seconds * settings.iterations
    return whole, (
        f"{stage}: {settings.batch} {crop} per step, at most {share} on each of {config.workers} worker(s). "
        f"Measured with {measured.samples} sample(s): {measured.seconds:.2f} s, at most "
        f"{measured.bytes / 2**30:.2f} GiB, loss {measured.loss:.3f}. Estimate: "
        f"about {seconds:.1f} s per step, about {_hours(whole)} for {settings.iterations} steps"
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"


class _Computed(MapCache):
    """Map cache that computes every map on request and stores nothing."""

    @classmethod
    def of(cls, config: TrainConfig, stage: StageName, storage: Storage, network: Network) -> MapCache | None:
        """Return the cache of the maps on which a stage learns; None if it learns on images."""
        kind = config.recipe.stage_input(stage)
        return None if kind == "images" else cls(storage, config.output, network, kind)

    def load(self, images: Images, index: int, mirror: bool) -> Tensor:
        """Compute and return the map of an image."""
        return self.compute(images, index, mirror)


def _picture(
    config: TrainConfig, stage: StageName, batch: list[Sample], images: Images, network: Network
) -> Image.Image:
    """Draw the samples with their labels, or the whole images if the stage learns on maps."""
    kind = config.recipe.stage_input(stage)
    spec = network.spec
    panels = []
    for position, sample in enumerate(batch):
        name = sample.uri.rsplit("/", 1)[-1]
        if kind == "images":
            rule = sample_rule(config.recipe, stage, spec)
            pixels = _pixels(sample.inputs, spec.mean_bgr, rule.footprint.crop_margin)
            label = _full_size(sample.target, rule.target_stride)
        else:
            # A map cannot be shown, so the same random choice is repeated to find its image.
            batch_size = config.recipe.stage(stage).batch
            index = sample_params(config.recipe.seed, stage, 0, position, batch=batch_size, images=len(images)).index
            pixels, label = images.pair(index)
            name += f"   (training input: {kind} of this image)"
        panels.append(Panel(name, pixels, label, None))
    palette = np.asarray(spec.palette, np.uint8)
    return paint_sheet(panels, spec.classes, palette, spec.ignore_label, ("Image", "Label"))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _pixels(inputs: Tensor, mean_bgr: tuple[float, float, float], margin: int) -> NDArray[np.uint8]:
    """Return the interior of a crop without its margin and with the mean added back, (H, W, 3) uint8 RGB."""
    # (3, H + 2·margin, W + 2·margin) BGR -> (H, W, 3) RGB
    height, width = inputs.shape[1:]
    interior = inputs[:, margin : height - margin, margin : width - margin] + torch.tensor(mean_bgr).view(3, 1, 1)
    return interior.flip(0).permute(1, 2, 0).round().clamp(0, 255).byte().numpy()


def _full_size(target: Tensor, stride: int) -> NDArray[np.uint8]:
    """Return a label for every pixel; at a stride each label is repeated over the pixels of its cell."""
    return target.numpy().repeat(stride, axis=0).repeat(stride, axis=1)


class _PeakMemory:
    """Context manager that measures peak memory: bytes allocated on a GPU, or resident in the process on a CPU.

    Args:
        device: Device whose memory is measured.

    Attributes:
        peak: Most bytes in use while the context was entered.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._done = threading.Event()
        self.peak = 0
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> _PeakMemory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        if self._device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self._device)

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._done.wait(_POLL_SECONDS):
            self.peak = max(self.peak, process.memory_info().rss)
