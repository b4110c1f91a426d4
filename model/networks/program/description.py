"""Description of an imported network: what its program expects and returns, as the JSON text in its archive says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from model.errors import CheckpointError
from model.networks.network import NetworkSpec
from model.prediction.geometry import Footprint
from model.prediction.upsampling import Upsampling
from model.prediction.views import WorkingSize

__all__ = ["FAMILY", "Check", "Description", "ProgramContext", "ProgramInput", "ProgramOutput"]

FAMILY = "program"
_LARGEST_SIDE = 10_000  # pixels
Side = Annotated[int, Field(ge=1, le=_LARGEST_SIDE)]
Triple = tuple[float, float, float]
Byte = Annotated[int, Field(ge=0, le=255)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ProgramInput(_Frozen):
    """Input of a program: channel c is (pixel · scale - mean[c]) / std[c].

    Attributes:
        channels: Order of the channels.
        scale: Factor of the pixel values, which are 0–255.
        mean: Mean of each channel, in the order of the channels.
        std: Standard deviation of each channel.
        multiple_of: Height and width are padded to a multiple of this number of pixels.
        minimum: Height and width are padded to at least this number of pixels.
        pad: Values of the padding at the right and the bottom.
        fixed: Height and width of every input; None: any.
    """

    channels: Literal["RGB", "BGR"] = "RGB"
    scale: float = 1 / 255
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    multiple_of: Annotated[int, Field(ge=1, le=256)] = 1
    minimum: Side = 1
    pad: Literal["reflect", "zeros", "edge"] = "zeros"
    fixed: tuple[Side, Side] | None = None

    @model_validator(mode="after")
    def _can_be_computed(self) -> ProgramInput:
        numbers = (self.scale, *self.mean, *self.std)
        if not all(math.isfinite(number) for number in numbers) or 0 in (self.scale, *self.std):
            raise ValueError(f"scale {self.scale}, mean {self.mean} or std {self.std} cannot be computed with")
        return self


class ProgramOutput(_Frozen):
    """Output of a program: a map of (N, C, h, w).

    Attributes:
        key: Name or number of the output in the original network; for the record.
        stride: Pixels of the input between neighboring cells.
        anchor: Coordinate of the center of cell 0, pixels.
        values: Kind of the values: `scores` before softmax, or `probabilities`.
        interpolates: Values to interpolate between cells.
        border: Cells beyond the outermost ones.
    """

    key: str | int | None = None
    stride: Annotated[int, Field(ge=1, le=64)] = 1
    anchor: float = 0.0
    values: Literal["scores", "probabilities"] = "scores"
    interpolates: Literal["scores", "probabilities"] = "scores"
    border: Literal["clamp"] = "clamp"


class ProgramContext(_Frozen):
    """Pixels around a window that can change its labels, as measured at import.

    Attributes:
        halo: Pixels before the first and after the last pixel of a cell that can change its scores; None: no bound.
        phase: Windows start at multiples of this number of pixels.
        overlap: Pixels by which neighboring windows overlap, if there is no bound.
    """

    halo: Annotated[int, Field(ge=0, le=_LARGEST_SIDE)] | None
    phase: Annotated[int, Field(ge=1, le=4096)] = 1
    overlap: Annotated[int, Field(ge=0, le=_LARGEST_SIDE)] = 128


class Check(_Frozen):
    """Golden test of a program: drawn pixels, and the labels that they get.

    Attributes:
        seed: Seed of the drawn image.
        size: Height and width of the drawn image, pixels.
        labels_sha256: SHA-256 of the labels, (H, W) bytes, which the archive holds as well.
    """

    seed: int
    size: tuple[Side, Side]
    labels_sha256: str


class Description(_Frozen):
    """The whole description; field names are those of the JSON text.

    Attributes:
        format: Version of the description.
        family: Always `program`.
        classes: Class names, in the order of the output's channels.
        palette: RGB color of each class, 0–255.
        ignore_label: Label value that counts nowhere.
        input: Input of the program.
        output: Output of the program.
        resize: Size to which images are resized first; None: their own.
        context: Pixels that a label depends on.
        source: Origin of the network; free JSON.
        license: License of the weights; None: not stated.
        check: Golden test.
    """

    format: Literal[2] = 2
    family: Literal["program"] = "program"
    classes: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...]
    palette: tuple[tuple[Byte, Byte, Byte], ...]
    ignore_label: Byte = 255
    input: ProgramInput = ProgramInput()
    output: ProgramOutput = ProgramOutput()
    resize: dict[Literal["long_side", "short_side", "size"], Side | tuple[Side, Side]] | None = None
    context: ProgramContext
    source: dict[str, JsonValue] = {}
    license: str | None = None
    check: Check

    @model_validator(mode="after")
    def _is_consistent(self) -> Description:
        if len(set(self.classes)) < len(self.classes) or not all(name.isprintable() for name in self.classes):
            raise ValueError("class names are not printable, or one stands there twice")
        unit = math.lcm(self.output.stride, self.input.multiple_of)
        if self.context.phase % unit:
            raise ValueError(f"context.phase {self.context.phase} is no multiple of {unit}, the stride and multiple_of")
        self.working_size()
        return self

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Description:
        """Check a description that was read from an archive.

        Raises:
            CheckpointError: If it is not complete or contradicts itself.
        """
        try:
            # Through JSON, where lists are tuples.
            return cls.model_validate_json(json.dumps(described))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(each) for each in first["loc"]) or "description"
            raise CheckpointError(f"{place} of the imported network: {first['msg']}: import it again") from error

    def working_size(self) -> WorkingSize | None:
        """Return the size to which images are resized before prediction."""
        if self.resize is None:
            return None
        ((kind, size),) = self.resize.items()
        if kind == "size" and isinstance(size, tuple):
            return WorkingSize(size=size)
        if kind == "size" or isinstance(size, tuple):
            raise ValueError(f"resize {self.resize} is neither one side nor a size of two")
        return WorkingSize(long_side=size) if kind == "long_side" else WorkingSize(short_side=size)

    def footprint(self) -> Footprint:
        """Return the footprint of the program; without a bound it holds the overlap of windows."""
        halo = self.context.halo
        overlap = self.context.overlap if halo is None else None
        # A window is never smaller than the smallest input, so that only the image's own border is padded.
        margin = 0 if halo is None else max(halo, self.input.minimum if self.input.minimum > 1 else 0)
        return Footprint(self.output.stride, margin, self.context.phase, "padded", overlap, self.input.fixed)

    def spec(self) -> NetworkSpec:
        """Return the specification of the network, with which everything but the program itself works."""
        output = self.output
        return NetworkSpec(
            classes=self.classes,
            palette=self.palette,
            # The program's own input function subtracts the mean.
            mean_bgr=(0.0, 0.0, 0.0),
            ignore_label=self.ignore_label,
            upsampling=Upsampling(output.stride, output.anchor, output.interpolates, output.border),
            resize=self.working_size(),
            family=FAMILY,
            provenance={"source": dict(self.source), "license": self.license},
        )
