"""What a user can ask of `jobs/train.py`."""

from __future__ import annotations

from typing import Annotated

import tyro
from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipeline.data.filesystems import normalise
from pipeline.training.recipe_schema import Recipe

__all__ = ["TrainConfig"]


class TrainConfig(BaseModel):
    """Trains one recipe on one data set; submitted again, it goes on where it stood."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: str
    """URI above train/ and val/, each with images/ and labels/ that pair by name."""
    output: str
    """URI for checkpoints, TensorBoard files and network.safetensors."""

    @field_validator("data", "output")
    @classmethod
    def _absolute(cls, uri: str) -> str:
        # Workers may run in another folder than whoever gave a relative path.
        return normalise(uri)

    # Without a prefix of its own: --front-end.iterations, not --recipe.front-end.iterations.
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    """What to compute."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Training processes; their number changes no result beyond rounding and the draw of dropout."""
    cpus_per_worker: Annotated[float, Field(gt=0)] = 1.0
    """CPUs (and torch threads) of each."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs of each: 0 trains on CPUs with gloo, 1 on GPUs with nccl in bfloat16."""
