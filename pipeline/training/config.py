"""What a user can ask of `jobs/train.py`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import tyro
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.data.filesystems import normalise
from pipeline.data.label_spaces import OWN
from pipeline.training.recipe_schema import STAGES, OwnClasses, Recipe

__all__ = ["FrozenData", "TrainConfig"]


class FrozenData(BaseModel):
    """Lists of images and labels that a run has frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lists: dict[str, str]
    """Path below the output of each split's list."""


class TrainConfig(BaseModel):
    """Trains one recipe on one data set; submitted again, it goes on where it stood."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: tuple[str, ...]
    """URIs of data sets with the same classes: as published, or folders of images and labels that pair by name."""
    output: str
    """URI for checkpoints, TensorBoard files and network.safetensors."""
    maps: str | None = None
    """URI for cached maps of whole images, which runs may share: each lies under a digest of the weights and the image
    that it comes from. Default: the output."""
    layout: str = "auto"
    """How --data is laid out (docs/datasets.md); auto looks."""
    classes: str | None = None
    """URI of a classes file (.csv or .json) for --data; default: classes.csv or classes.json in it, for the recipes
    custom and custom_vgg16."""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the images that is set aside for validation where there is no val; by a hash of each path, so that it
    stays while the data grow. Default: 0.1 of a folder without splits."""
    val_group: str | None = None
    """Regular expression whose first group (or match) in a path names what stays together in train or val, such as
    '(seq[0-9]+)_' for the frames of a drive."""
    require_labels: bool = False
    """Refuse data in which an image has no label, instead of leaving such images out."""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over the training images that the front end's stage takes where its iterations are -1; default: as many
    as make 600 to 6,000 steps, about 30."""
    extra_data: str | None = None
    """URI of a second data set, for the stages whose recipe mixes one in (COCO for voc_coco_front_end)."""
    extra_layout: str = "auto"
    """How --extra-data is laid out."""

    # Without a prefix of its own: --front-end.iterations, not --recipe.front-end.iterations.
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    """What to compute."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Training processes; their number changes no result beyond rounding."""
    min_workers: Annotated[int, Field(ge=1)] | None = None
    """Go on with as few as this when machines are lost, and with more when they come back; default: --workers."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """CPUs (and torch threads) of each."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of each: 0 trains on CPUs with gloo, 1 on GPUs with nccl in bfloat16."""
    compile: bool = False
    """Compile the network with torch.compile: a slower start, faster steps."""
    recompute: bool = False
    """Compute the convolutions' maps again on the way back instead of keeping them: less memory, more time."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Lost workers, or storage errors, that may follow one another without a new checkpoint between them."""
    no_progress_minutes: Annotated[float, Field(gt=0)] = 10.0
    """Give up when no step, map or validated image was finished for so long."""
    dry_run: bool = False
    """Look at the data, draw one batch of each stage into <output>/dry-run, take one step on it, print time and
    memory, and end."""
    frozen: Annotated[FrozenData | None, tyro.conf.Suppress] = None
    """Lists of images that were frozen when the run began; None: look at the data."""
    data_classes: Annotated[tuple[OwnClasses | None, ...], tyro.conf.Suppress] = ()
    """Classes in the label files of each data set, where they are not written as the network's classes are."""

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
        # Workers may run in another folder than whoever gave a relative path.
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
        """Return the classes in the label files of a data set; None: they are written as the network's classes are."""
        return self.data_classes[number] if number < len(self.data_classes) else None
