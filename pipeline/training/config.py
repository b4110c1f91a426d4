"""Command-line configuration of `jobs/train.py`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import tyro
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.data.filesystems import normalise
from pipeline.data.label_spaces import OWN
from pipeline.options import option
from pipeline.training.recipes.schema import STAGES, OwnClasses, Recipe

__all__ = ["FrozenData", "TrainConfig"]


class FrozenData(BaseModel):
    """Lists of images and labels that a run froze when it began."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lists: dict[str, str]
    """Path of each split's list below the output, by name of the split."""


class TrainConfig(BaseModel):
    """Configuration of a training run; the same command resumes a run that was interrupted."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: Annotated[tuple[str, ...], option("URI [URI ...]")]
    """URIs of data sets with the same classes: published data sets, or folders whose images and labels pair by name."""
    output: Annotated[str, option("URI")]
    """URI for checkpoints, TensorBoard files and network.safetensors."""
    maps: Annotated[str | None, option("URI", "the output")] = None
    """URI for cached maps of whole images. Several runs may share it, as each map lies under a digest of its weights
    and its image."""
    layout: str = "auto"
    """Name of the layout of --data (docs/datasets.md); auto detects it."""
    classes: Annotated[
        str | None, option("URI", "classes.csv or classes.json in the data set, for custom and custom_vgg16")
    ] = None
    """URI of a classes file (.csv or .json) for --data."""
    val_fraction: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | None, option("FLOAT", "0.1 of a folder without splits")
    ] = None
    """Share of the images (0–1) that is set aside for validation where there is no val split. A hash of each path
    decides, so the choice stays the same while the data grow."""
    val_group: Annotated[str | None, option("REGEX", "no groups")] = None
    """Regular expression whose first group (or whole match) in a path names a group of images, which stays together in
    train or val; for example '(seq[0-9]+)_' for the frames of a drive."""
    require_labels: bool = False
    """Refuse data in which an image has no label, instead of leaving such images out."""
    epochs: Annotated[Annotated[float, Field(gt=0)] | None, option("FLOAT", "about 30, within 600 to 6,000 steps")] = (
        None
    )
    """Passes over the training images in the front end's stage, if its iterations are -1."""
    extra_data: Annotated[str | None, option("URI", "none")] = None
    """URI of a second data set for the stages that mix one in (COCO for voc_coco_front_end)."""
    extra_layout: str = "auto"
    """Name of the layout of --extra-data (docs/datasets.md); auto detects it."""

    # The empty name removes the prefix: --front-end.iterations, not --recipe.front-end.iterations.
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    """Settings of the recipe: network, stages and schedules."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Number of training processes; it changes no result beyond rounding."""
    min_workers: Annotated[Annotated[int, Field(ge=1)] | None, option("INT", "--workers")] = None
    """Smallest number of workers with which the run continues after machines are lost. The group grows again when
    machines come back."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """CPUs per worker, and its number of torch threads (rounded down, at least 1)."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs per worker: 0 trains on CPUs with gloo, 1 on GPUs with nccl in bfloat16."""
    compile: bool = False
    """Compile the network with torch.compile: slower start, faster steps."""
    recompute: bool = False
    """Recompute the maps of the convolutions in the backward pass instead of keeping them: less memory, more time."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Most failures in a row (lost workers or storage errors) without a new checkpoint between them; one more ends the
    job."""
    no_progress_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Minutes without a finished step, map or validated image after which the job gives up."""
    dry_run: bool = False
    """Survey the data, draw one batch of each stage into <output>/dry-run, measure a step on it, print time and memory,
    and exit."""
    frozen: Annotated[FrozenData | None, tyro.conf.Suppress] = None
    """Lists of images that were frozen when the run began; None: the data sets are listed anew."""
    data_classes: Annotated[tuple[OwnClasses | None, ...], tyro.conf.Suppress] = ()
    """Classes in the label files of each data set; None for files that are encoded like the network's classes."""

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_several(cls, data: Any) -> Any:
        return (data,) if isinstance(data, str) else data

    @field_validator("data")
    @classmethod
    def _each_absolute(cls, data: tuple[str, ...]) -> tuple[str, ...]:
        found = tuple(normalise(uri) for uri in data)
        if not found or len({uri.rstrip("/") for uri in found}) < len(found):
            raise ValueError("it needs one data set or more, each of them once")
        return found

    @field_validator("output", "extra_data", "maps", "classes")
    @classmethod
    def _absolute(cls, uri: str | None) -> str | None:
        # Workers may run in another folder than the driver, so a relative path would mean another place.
        return uri and normalise(uri)

    @field_validator("val_group")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"it is no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"at least {self.min_workers} workers of {self.workers}: lower --min-workers")
        mixing = [name for name in STAGES if self.recipe.stage(name).extra_data and self.recipe.stage(name).iterations]
        if mixing and self.extra_data is None:
            raise ValueError(f"stage {mixing[0]} of {self.recipe.name} mixes in a second data set: give --extra-data")
        if self.extra_data is not None and self.recipe.label_space == OWN and self.classes is None:
            raise ValueError("--extra-data has classes of its own: give it as a further --data instead")
        if self.extra_data is not None and not mixing:
            raise ValueError(f"no stage of {self.recipe.name} mixes in --extra-data: leave it out")
        return self

    def classes_of(self, number: int) -> OwnClasses | None:
        """Return the classes in the label files of a data set; None if they are encoded like the network's classes.

        Args:
            number: Position of the data set in `data`.
        """
        return self.data_classes[number] if number < len(self.data_classes) else None
