"""What a checkpoint says of its network beside the weights: one JSON text in the header of a safetensors file."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

from model.errors import CheckpointError
from model.geometry import MIN_WINDOW
from model.network import ContextSpec, NetworkSpec

__all__ = ["METADATA_KEY", "describe", "header_of", "parse_spec", "read_metadata", "short"]

METADATA_KEY = "dilated_context"
FORMAT = 1
# Whoever made a file may have written anything into it: what follows bounds the work and the words it can cause.
_MAX_HEADER = 4 * 2**20  # bytes
_LONGEST_NAME, _LONGEST_MESSAGE = 100, 200  # characters
_LARGEST_DILATION, _LARGEST_WINDOW = 4096, 4096
_DEEPEST = 20  # levels of provenance
_KEYS = (
    "classes",
    "palette",
    "mean_bgr",
    "ignore_label",
    "context",
    "upsampling",
    "reference_window",
)


def read_metadata(data: bytes, key: str) -> dict[str, Any]:
    """The JSON object under `key` in a safetensors header, read before any tensor is touched.

    Raises:
        CheckpointError: if there is none.
    """
    try:
        header = json.loads(header_of(data), object_pairs_hook=_without_repetition)
        described = json.loads(header["__metadata__"][key], object_pairs_hook=_without_repetition)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"no metadata `{key}` in the file ({short(error)}): it was not written by this project"
        ) from error
    if not isinstance(described, dict):
        raise CheckpointError(f"metadata `{key}` is a {type(described).__name__}, not an object")
    return described


def header_of(data: bytes) -> bytes:
    """The header of a safetensors file: JSON, not parsed yet, of a length that it can have.

    Raises:
        CheckpointError: if it has another.
    """
    if len(data) < 8:
        raise CheckpointError(f"{len(data)} bytes are not a safetensors file: give a checkpoint of this project")
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_MAX_HEADER, len(data) - 8):
        raise CheckpointError(
            f"the header claims {length} bytes of {len(data)} (at most {_MAX_HEADER} are read): "
            "not a whole safetensors file"
        )
    return data[8 : 8 + length]


def short(thing: object) -> str:
    """What somebody else's error or value says, as one printable line of bounded length."""
    text = str(thing)[: _LONGEST_MESSAGE + 1]
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(text) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]} …"


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of a name that stands twice, this parser would take the last and another one the first.
    made = dict(pairs)
    if len(made) < len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {repeated!r} stands there twice")
    return made


def describe(spec: NetworkSpec) -> dict[str, Any]:
    context = spec.context and {"dilations": list(spec.context.dilations), "padding": spec.context.padding}
    return {
        "format": FORMAT,
        "classes": list(spec.classes),
        "palette": [list(colour) for colour in spec.palette],
        "mean_bgr": list(spec.mean_bgr),
        "ignore_label": spec.ignore_label,
        "context": context,
        "upsampling": spec.upsampling,
        "reference_window": spec.reference_window and list(spec.reference_window),
        **{key: value for key, value in spec.provenance.items() if key not in _KEYS and key != "format"},
    }


def parse_spec(metadata: Mapping[str, Any]) -> NetworkSpec:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"format {short(metadata.get('format'))} is unknown, this version reads {FORMAT}: upgrade"
        )
    missing = [key for key in _KEYS if key not in metadata]
    if missing:
        raise CheckpointError(f"metadata lacks {', '.join(missing)}: the file is incomplete")
    try:
        return _build_spec(metadata)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"metadata cannot be used: {short(error)}") from error


def _build_spec(metadata: Mapping[str, Any]) -> NetworkSpec:
    context, window = metadata["context"], metadata["reference_window"]
    mean = metadata["mean_bgr"]
    palette = tuple(_colour(colour) for colour in metadata["palette"])
    upsampling, ignore = metadata["upsampling"], metadata["ignore_label"]
    if len(mean) != 3 or not all(isinstance(value, int | float) and abs(value) <= 255 for value in mean):
        raise ValueError(f"mean_bgr {mean} is not three numbers within ±255")
    if upsampling not in ("grid", "deconvolution") or type(ignore) is not int or not 0 <= ignore <= 255:
        raise ValueError(f"upsampling {upsampling!r} or ignore_label {ignore!r} is not known")
    provenance = {key: value for key, value in metadata.items() if key not in _KEYS and key != "format"}
    if _deeper(provenance, _DEEPEST):
        raise ValueError(f"its provenance is nested deeper than {_DEEPEST} levels")
    return NetworkSpec(
        classes=_class_names(metadata["classes"]),
        palette=palette,
        mean_bgr=(float(mean[0]), float(mean[1]), float(mean[2])),
        ignore_label=ignore,
        context=None if context is None else _context_spec(context),
        upsampling=upsampling,
        reference_window=None if window is None else _window(window),
        provenance=provenance,
    )


def _class_names(names: Any) -> tuple[str, ...]:
    """Names go into tables, pages, pictures and terminals."""
    if not isinstance(names, list):
        raise ValueError(f"classes are a {type(names).__name__}, not a list")
    for name in names:
        if not (isinstance(name, str) and name.isprintable() and 1 <= len(name) <= _LONGEST_NAME):
            raise ValueError(f"class name {name!r} is not 1 to {_LONGEST_NAME} printable characters")
    return tuple(names)


def _window(window: Any) -> tuple[int, int]:
    if len(window) != 2 or not all(type(side) is int and MIN_WINDOW <= side <= _LARGEST_WINDOW for side in window):
        raise ValueError(f"reference_window {window} is not two sides of {MIN_WINDOW}–{_LARGEST_WINDOW} pixels")
    return window[0], window[1]


def _deeper(value: Any, levels: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _deeper(child, levels - 1) for child in children)


def _context_spec(context: Mapping[str, Any]) -> ContextSpec:
    dilations, padding = context["dilations"], context["padding"]
    sound = (
        all(type(each) is int and 1 <= each <= _LARGEST_DILATION for each in dilations) and 4 <= len(dilations) <= 64
    )
    if padding not in ("layer", "input") or not sound:
        raise ValueError(f"context {dict(context)} is not a module of this family")
    return ContextSpec(tuple(dilations), padding)


def _colour(colour: Any) -> tuple[int, int, int]:
    if len(colour) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in colour):
        raise ValueError(f"palette colour {colour} is not three numbers within 0–255")
    return colour[0], colour[1], colour[2]
