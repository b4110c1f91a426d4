"""What a user can ask of `jobs/train.py`."""

from __future__ import annotations

from typing import Annotated

import tyro
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.data.filesystems import normalise
from pipeline.training.recipe_schema import STAGES, Recipe

__all__ = ["TrainConfig"]


class TrainConfig(BaseModel):
    """Trains one recipe on one data set; submitted again, it goes on where it stood."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: str
    """URI of a data set as published, or of train/ and val/, each with images/ and labels/ that pair by name."""
    output: str
    """URI for checkpoints, TensorBoard files and network.safetensors."""
    maps: str | None = None
    """URI for cached maps of whole images, which runs may share: each lies under a digest of the weights and the image
    that it comes from. Default: the output."""
    layout: str = "auto"
    """How --data is laid out (docs/datasets.md); auto looks."""
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
    """Draw one batch of each stage into <output>/dry-run, take one step on it, print time and memory, and end."""

    @field_validator("data", "output", "extra_data", "maps")
    @classmethod
    def _absolute(cls, uri: str | None) -> str | None:
        # Workers may run in another folder than whoever gave a relative path.
        return uri and normalise(uri)

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"at least {self.min_workers} workers of {self.workers}: lower --min-workers")
        mixing = [name for name in STAGES if self.recipe.stage(name).extra_data and self.recipe.stage(name).iterations]
        if mixing and self.extra_data is None:
            raise ValueError(f"stage {mixing[0]} of {self.recipe.name} mixes in a second data set: give --extra-data")
        if self.extra_data is not None and not mixing:
            raise ValueError(f"no stage of {self.recipe.name} mixes in --extra-data: leave it out")
        return self
