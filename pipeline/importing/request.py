"""Request of an import: the source, and values that win over what its files state; the options of the job."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict
from tyro.conf import Positional

from pipeline.options import option

__all__ = ["ImportRequest"]

Numbers = tuple[float, float, float]


class ImportRequest(BaseModel):
    """Source of a network, and what its files do not state; field docstrings become the texts of --help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: Positional[str]
    """URI of a .pt2 archive or of a folder, or torchvision:NAME."""
    weights: Annotated[str | None, option("URI", "none")] = None
    """With torchvision:NAME: safetensors file, or state dict without code."""
    classes: Annotated[str | None, option("URI | NAMES", "those that the files state")] = None
    """Classes file, or names separated by commas, in the order of the network's outputs."""
    palette: Annotated[str | None, option("COLORS", "that of the classes file, or colors far apart")] = None
    """Color of each class, such as #804080,#464646, in the order of the classes."""
    mean: Annotated[Numbers | None, option("A B C", "that which the files state")] = None
    """Mean of each channel after scaling, in the order of the channels."""
    std: Annotated[Numbers | None, option("A B C", "that which the files state")] = None
    """Standard deviation of each channel after scaling."""
    scale: Annotated[float | None, option("FLOAT", "that which the files state, or 1/255")] = None
    """Factor of the pixel values, which are 0 to 255."""
    channels: Annotated[Literal["RGB", "BGR"] | None, option("{RGB,BGR}", "that which the files state, or RGB")] = None
    """Order of the input's channels."""
    ignore_label: Annotated[int | None, option("INT", "that which the files state, or 255")] = None
    """Label value that counts nowhere."""
    output_key: Annotated[str | None, option("NAME", "the only output")] = None
    """Of a .pt2 archive with several outputs: name or number of the map of scores."""
    values: Literal["scores", "probabilities"] = "scores"
    """Values of the output: scores before softmax, or probabilities."""
    fixed: Annotated[tuple[int, int] | None, option("HEIGHT WIDTH", "any size")] = None
    """Export the network for this size alone, in pixels."""
    dynamic: bool = False
    """Refuse a network that cannot be exported for every size, instead of exporting it for one."""
    overlap: int = 128
    """Pixels by which windows overlap if a label depends on the whole image."""
    license: Annotated[str | None, option("TEXT", "not stated")] = None
    """License of the weights, for the record."""
