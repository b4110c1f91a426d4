"""Options of `jobs/segment_bucket.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pipeline.data.containers import LARGEST_MAX_PIXELS, MAX_PIXELS
from pipeline.data.filesystems import normalise
from pipeline.data.label_spaces import LabelSpace, label_space, network_label_space
from pipeline.errors import ConfigError
from pipeline.options import option

if TYPE_CHECKING:
    # The model imports torch, which takes seconds; --help does without it.
    from model.networks.network import Network, NetworkSpec
    from model.prediction.views import View, WorkingSize
from dataclasses import dataclass, replace

__all__ = ["SEQUENTIAL", "Concurrency", "SegmentConfig", "labels_of", "setting_differences"]

# Defaults that an identity leaves out, so that runs that began before these settings existed keep their identity.
_UNUSED: dict[str, Any] = {"flip": False, "scales": [1.0], "device": "cpu", "precision": "float32"}

Positive = Annotated[int, Field(ge=1)]


class SegmentConfig(BaseModel):
    """Options of a run that segments every image of a prefix, glob or manifest into Parquet tables."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    images: Annotated[str, option("URI")]
    """Input: a prefix, a glob, or a manifest (.parquet, .csv, .jsonl, .txt) with image_uri[, label_uri]."""
    checkpoint: Annotated[str, option("URI")]
    """URI of the network, a file network.safetensors."""
    output: Annotated[str, option("URI")]
    """Prefix for the tables. An interrupted run resumes there; an output of another run is refused."""
    labels: Annotated[str | None, option("URI", "no labels, so no scores")] = None
    """Prefix of label files, which pair with the images by relative path without extension."""
    label_space: Annotated[str | None, option("NAME", "that of the checkpoint")] = None
    """Encoding of the label files (camvid, cityscapes_label_ids, …); the classes must be the checkpoint's."""
    geometry: Literal["image", "reference"] = "image"
    """image: seamless, any size. reference: tile by tile like the released networks, for parity with them."""
    flip: bool = False
    """Also predict each image mirrored, and average the probabilities; this takes twice the time."""
    scales: tuple[Annotated[float, Field(ge=0.25, le=2)], ...] = (1.0,)
    """Scales of height and width, 0.25 to 2, at which to predict each image; the probabilities are averaged."""
    actors: Annotated[Positive | None, option("INT", "as many as the CPUs or GPUs of the cluster hold")] = None
    """Number of actors that predict."""
    cpus_per_actor: Annotated[float, Field(gt=0)] = 1.0
    """CPUs of each actor; rounded down, but at least 1, also its number of torch threads."""
    gpus_per_actor: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of each actor; 0: predict on the CPU."""
    shard_images: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Images per shard, which becomes one part file; a shard is started over when its actor dies."""
    window: Annotated[int, Field(ge=380)] = 1236
    """Longest side of a window in pixels, 372 of them margin in the dilated family; bounds memory, and changes no
    result unless a score depends on the whole image."""
    overlap: Annotated[Annotated[int, Field(ge=0, le=10_000)] | None, option("PIXELS", "that of the network")] = None
    """Pixels by which windows overlap, for an imported network in which a score depends on the whole image."""
    batch_images: Annotated[Annotated[int, Field(ge=1, le=64)] | None, option("INT", "8")] = None
    """Largest batch of the network on a GPU, in images of one size and shard; a CPU predicts one by one."""
    transform_memory: Annotated[float, Field(ge=0)] = 2.5
    """GiB for the weights of a CPU actor's faster convolutions, at most half of its CPUs' share of memory; 0: none."""
    compile: bool = False
    """Compile the front end with torch.compile: slower first image of each size, fewer passes over memory."""
    confidence_maps: bool = False
    """Also write the winning probability of every pixel, as an 8-bit PNG."""
    since: Annotated[str | None, option("URI", "no earlier run; all images are segmented")] = None
    """Output of a committed run, same network and settings; only images new or changed since then are segmented."""
    relabeled: bool = False
    """With --since: also segment and score unchanged images whose label file has changed since then."""
    retry_errors: bool = False
    """With --since: also segment unchanged images whose newest row is an error."""
    limit: Annotated[Annotated[int, Field(ge=0)] | None, option("INT", "all")] = None
    """Largest number of images, the first ones in order of URI."""
    allow_empty: bool = False
    """Commit a run without images instead of refusing it; implied by --since."""
    plan: Annotated[bool, tyro.conf.arg(name="dry-run", aliases=("--plan",))] = False
    """Print the run's reads, writes and estimated time, then exit; nothing is started or written."""
    max_error_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest fraction of images that may fail, 0 to 1; if more fail, nothing is committed."""
    max_pixels: Annotated[int, Field(ge=1, le=LARGEST_MAX_PIXELS)] = MAX_PIXELS
    """Largest image in pixels; larger ones become error rows before they are decoded."""
    step_seconds: Annotated[float, Field(gt=0)] = 100.0
    """Seconds that decoding an image, or one window of the network, may take before the process is ended."""
    image_attempts: Positive = 3
    """Processes that die in one image, after a first death in its shard, before it becomes an error row."""
    no_progress_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Minutes without a finished image, shard or network window after which the run ends with an error."""

    @field_validator("scales")
    @classmethod
    def _distinct(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not scales or len(set(scales)) < len(scales):
            raise ValueError("it needs one scale or more, each of them once")
        # Sorted: the order of the options changes no result, so it must not change the identity.
        return tuple(sorted(scales))

    @field_validator("images", "checkpoint", "output", "labels", "since")
    @classmethod
    def _absolute(cls, uri: str | None) -> str | None:
        # Actors may run in another folder than the one to which a relative path refers.
        return None if uri is None else normalise(uri)

    @field_validator("since")
    @classmethod
    def _another(cls, since: str | None, info: ValidationInfo) -> str | None:
        if since is not None and since.rstrip("/") == str(info.data.get("output")).rstrip("/"):
            raise ValueError("it is the output itself: what is segmented now needs an output of its own")
        return since

    def identity_settings(self) -> dict[str, Any]:
        """Return the settings that can change a pixel, a column or a file name; equal runs have equal settings."""
        names = ("geometry", "label_space", "confidence_maps", "shard_images", "max_pixels")
        settings = {name: getattr(self, name) for name in names}
        later = {"flip": self.flip, "scales": list(self.scales), **self.device_settings()}
        return settings | {name: value for name, value in later.items() if value != _UNUSED[name]}

    def device_settings(self) -> dict[str, str]:
        """Return the kind of device that predicts, and the precision of its front end; both decide labels."""
        from model.precision import precision_name

        device = "cuda" if self.gpus_per_actor else "cpu"
        return {"device": device, "precision": precision_name(device)}

    def views(self, resize: WorkingSize | None = None) -> tuple[View, ...]:
        """Return the views of each image that are averaged, for a network that was trained at this working size."""
        from model.prediction.views import views

        return views(self.scales, flip=self.flip, resize=resize)


def network_of(config: SegmentConfig, checkpoint: bytes) -> Network:
    """Return the network of a run on the CPU, with the overlap of --overlap.

    Raises:
        CheckpointError: If the bytes are no checkpoint.
        ConfigError: If the network's windows cannot have the sizes of --window and --overlap.
    """
    from model.files.checkpoint import from_bytes

    network = from_bytes(checkpoint)
    footprint = network.front_end.footprint
    if config.overlap is not None:
        if footprint.overlap is None:
            raise ConfigError(
                f"--overlap {config.overlap} has no effect: the scores of this network depend on a bounded part of the "
                "image, so its windows need no overlap. Drop the option"
            )
        footprint = replace(footprint, overlap=config.overlap)
        network.front_end.footprint = footprint
    if footprint.tile is not None and max(footprint.tile) > config.window:
        raise ConfigError(
            f"--window {config.window} is smaller than the only input of this network, {footprint.tile[0]}×"
            f"{footprint.tile[1]} pixels: use at least {max(footprint.tile)}"
        )
    limit = config.window if footprint.tile is None else min(footprint.tile)
    if limit < footprint.min_window:
        raise ConfigError(
            f"windows of {limit} pixels hold no cell of this network: use --window {footprint.min_window} or more"
        )
    return network


def window_settings(config: SegmentConfig, network: Network) -> dict[str, Any]:
    """Return window and overlap if they decide labels, for the identity of a run; else nothing."""
    footprint = network.front_end.footprint
    return {} if footprint.overlap is None else {"window": config.window, "overlap": footprint.overlap}


def labels_of(config: SegmentConfig, spec: NetworkSpec) -> LabelSpace:
    """Return the label space in which a run reads labels: that of --label-space, or the checkpoint's own.

    Its class ids are those of the checkpoint, whose classes may have another order.

    Raises:
        ConfigError: If --label-space is unknown.
    """
    from model.files.metadata import metadata_of

    if config.label_space is None:
        return network_label_space(metadata_of(spec))
    return label_space(config.label_space).ordered_as(spec.classes)


def setting_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one phrase for each setting in which the `identity_settings` of two runs differ."""
    was, is_now = ({**_UNUSED, **settings} for settings in (before, now))
    return [
        f"{name} was {was.get(name)!r}, now {is_now.get(name)!r}"
        for name in sorted(was.keys() | is_now.keys())
        if was.get(name) != is_now.get(name)
    ]


@dataclass(frozen=True)
class Concurrency:
    """Limits of the work in progress: enough to hide slow GETs and the labeling of a batch, with bounded memory.

    Attributes:
        batch: Largest number of images of one size in a network batch.
        ahead: Number of images that are loaded ahead of the network; as many again are finished behind it.
        threads: Number of threads that load images; as many again finish them.
        shards: Number of shards of one actor in progress: one is predicted, another loads its first images, another
            is written.
    """

    batch: int
    ahead: int
    threads: int
    shards: int

    @classmethod
    def of(cls, config: SegmentConfig, *, on_gpu: bool) -> Concurrency:
        """Return the limits that suit the device."""
        # Batch: an H200 is a quarter slower with one image than with eight. On a CPU, one image occupies all cores, and
        # images alone make isolated attempts compute the same bits as ordinary ones.
        # Threads: a GPU predicts hundreds of images a second, so several GETs must be in progress at any time.
        # Shards: a GPU finishes a shard of 64 images before Ray delivers the next one.
        batch, threads, shards = (config.batch_images or 8, 8, 4) if on_gpu else (1, 2, 2)
        # While the network runs on one batch, the next one is loaded completely and the previous one is finished.
        return cls(batch, max(4, 2 * batch), threads, shards)


# One stage of one image at a time, so that a process that dies has one suspect.
SEQUENTIAL = Concurrency(1, 0, 1, 1)
