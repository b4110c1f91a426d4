"""Metadata of a checkpoint: one JSON text in the safetensors header that describes the network beside its weights."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from model.errors import CheckpointError
from model.networks.dilated.geometry import DILATED, MIN_WINDOW
from model.networks.families import FAMILIES
from model.networks.network import Color, ContextSpec, NetworkSpec
from model.prediction.upsampling import NAMED, Upsampling
from model.prediction.views import WorkingSize

__all__ = ["METADATA_KEY", "header_of", "metadata_of", "parse_spec", "read_metadata", "truncate_text"]

METADATA_KEY = "dilated_context"
# Networks that format 1 can describe are written in format 1; format 2 adds the keys of `_KEYS_2`.
FORMAT = 1
FORMAT_2 = 2
# First bytes of what torch.save writes: a zip archive since version 1.6, a bare pickle before.
_PICKLES = (b"PK\x03\x04", b"\x80\x02")
# A file may come from anyone and contain anything. These limits bound the work and the messages that it can cause.
_MAX_HEADER = 4 * 2**20  # bytes
_LONGEST_NAME, _LONGEST_MESSAGE = 100, 200  # characters
_LARGEST_DILATION = 4096
_LARGEST_WINDOW = 4096
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
_LABEL_KEYS = ("label_values", "label_ignore", "label_colors", "label_ignore_colors")
_KEYS_2 = ("family", "family_options", "refinement", *_LABEL_KEYS, "resize")
_RESERVED = frozenset({"format", *_KEYS, *_KEYS_2})
_LARGEST_VALUE = 65535  # 16-bit label files


def read_metadata(data: bytes, key: str) -> dict[str, Any]:
    """Return the JSON object under `key` in a safetensors header, without reading any tensor.

    Args:
        data: Content of the safetensors file.
        key: Key in the header's `__metadata__`.

    Raises:
        CheckpointError: If there is no such object, or if a name occurs twice in an object.
    """
    try:
        header = json.loads(header_of(data), object_pairs_hook=_without_repetition)
        described = json.loads(header["__metadata__"][key], object_pairs_hook=_without_repetition)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"no metadata `{key}` in the file ({truncate_text(error)}): it was not written by this project"
        ) from error
    if not isinstance(described, dict):
        raise CheckpointError(f"metadata `{key}` is a {type(described).__name__}, not an object")
    return described


def header_of(data: bytes) -> bytes:
    """Return the header of a safetensors file: JSON, not parsed yet, after a check of its length.

    Raises:
        CheckpointError: If the file is a pickle or has less than 8 bytes, or if the header is longer than 4 MiB or than
            the file.
    """
    if len(data) < 8:
        raise CheckpointError(f"{len(data)} bytes are not a safetensors file: give a checkpoint of this project")
    if data.startswith(_PICKLES):
        raise CheckpointError(
            "it is a PyTorch pickle (.pth, .pt), which can run code and is never loaded: load it where you trust it, "
            "and write its tensors with safetensors.torch.save_file"
        )
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_MAX_HEADER, len(data) - 8):
        raise CheckpointError(
            f"the header claims {length} bytes of {len(data)} (at most {_MAX_HEADER} are read): "
            "not a whole safetensors file"
        )
    return data[8 : 8 + length]


def truncate_text(thing: object) -> str:
    """Return a foreign error or value as one printable line of bounded length, for use in messages."""
    text = str(thing)[: _LONGEST_MESSAGE + 1]
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(text) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]} …"


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict, and refuse names that occur twice."""
    # For a repeated name, this parser would take the last value, and another parser the first.
    made = dict(pairs)
    if len(made) < len(pairs):
        repeated = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {repeated!r} stands there twice")
    return made


def metadata_of(spec: NetworkSpec) -> dict[str, Any]:
    """Return the metadata of a network as JSON values: format 1 if it can describe the network, else format 2."""
    context = spec.context and {"dilations": list(spec.context.dilations), "padding": spec.context.padding}
    later = _describe_later(spec)
    return {
        "format": FORMAT_2 if later else FORMAT,
        "classes": list(spec.classes),
        "palette": [list(colour) for colour in spec.palette],
        "mean_bgr": list(spec.mean_bgr),
        "ignore_label": spec.ignore_label,
        "context": context,
        "upsampling": spec.upsampling.name,
        "reference_window": spec.reference_window and list(spec.reference_window),
        **later,
        **{key: value for key, value in spec.provenance.items() if key not in _RESERVED},
    }


def _describe_later(spec: NetworkSpec) -> dict[str, Any]:
    """Return the keys of format 2, and values that format 1 cannot express, if this network needs any."""
    found: dict[str, Any] = {}
    if spec.upsampling.name is None:
        family = FAMILIES.get(spec.family)
        fixed = family is not None and spec.upsampling == family.upsampling
        found["upsampling"] = None if fixed else asdict(spec.upsampling)
    if spec.label_values is not None:
        found["label_values"] = [list(values) for values in spec.label_values]
    if spec.label_ignore is not None:
        found["label_ignore"] = list(spec.label_ignore)
    if spec.label_colors is not None:
        found["label_colors"] = [[list(color) for color in colors] for colors in spec.label_colors]
    if spec.label_ignore_colors is not None:
        found["label_ignore_colors"] = [list(color) for color in spec.label_ignore_colors]
    if spec.resize is not None:
        sides = {"long_side": spec.resize.long_side, "short_side": spec.resize.short_side, "size": spec.resize.size}
        found["resize"] = {
            name: list(side) if isinstance(side, tuple) else side for name, side in sides.items() if side is not None
        }
    if found or spec.family != DILATED or spec.family_options:
        found |= {"family": spec.family, "family_options": dict(spec.family_options), "refinement": None}
    return found


def parse_spec(metadata: Mapping[str, Any]) -> NetworkSpec:
    """Return the network specification that a checkpoint's metadata describe.

    Raises:
        CheckpointError: If the format or family is unknown, or the metadata are incomplete or impossible.
    """
    number = metadata.get("format")
    if number not in (FORMAT, FORMAT_2) or isinstance(number, bool):
        raise CheckpointError(
            f"format {truncate_text(number)} is unknown, this version reads {FORMAT} and {FORMAT_2}: upgrade"
        )
    missing = [key for key in _KEYS if key not in metadata]
    if missing:
        raise CheckpointError(f"metadata lacks {', '.join(missing)}: the file is incomplete")
    try:
        if number == FORMAT:
            return _build_spec({key: value for key, value in metadata.items() if key not in _KEYS_2})
        _check_family(metadata)
        return replace(_build_spec(metadata), family=metadata["family"], **_later_fields(metadata))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"metadata cannot be used: {truncate_text(error)}") from error


def _check_family(metadata: Mapping[str, Any]) -> None:
    """Refuse metadata of format 2 with a family or a refinement that this version does not know."""
    family = metadata.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise CheckpointError(
            f"format 2 of family {truncate_text(family)} is unknown, this version reads {known}: upgrade"
        )
    if metadata.get("refinement") is not None:
        raise CheckpointError("its refinement is unknown to this version: upgrade")


def _later_fields(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a specification that format 2 adds."""
    classes = len(metadata["classes"])
    values = metadata.get("label_values")
    ignore = metadata.get("label_ignore")
    colors = metadata.get("label_colors")
    void = metadata.get("label_ignore_colors")
    options = metadata.get("family_options", {})
    if not isinstance(options, dict) or _deeper(options, _DEEPEST):
        raise ValueError(f"family_options {options!r} are not an object of at most {_DEEPEST} levels")
    fields: dict[str, Any] = {
        "family_options": options,
        "label_values": None if values is None else tuple(_label_values(each) for each in values),
        "label_ignore": None if ignore is None else _label_values(ignore),
        "label_colors": None if colors is None else tuple(tuple(_colour(each) for each in own) for own in colors),
        "label_ignore_colors": None if void is None else tuple(_colour(color) for color in void),
        "resize": None if metadata.get("resize") is None else _working_size(metadata["resize"]),
    }
    if any(fields[key] is not None and len(fields[key]) != classes for key in ("label_values", "label_colors")):
        raise ValueError(f"label_values or label_colors are not those of {classes} classes")
    # A label value must belong to exactly one class or to the ignored values.
    ignored = (metadata["ignore_label"],) if ignore is None else fields["label_ignore"]
    if values is not None:
        every = [value for own in fields["label_values"] for value in own] + list(ignored)
        if len(set(every)) < len(every) or not all(fields["label_values"]):
            raise ValueError("a value of label_values and label_ignore stands there twice, or a class has none")
    return fields


def _label_values(values: Any) -> tuple[int, ...]:
    """Check pixel values of label files, whole numbers within 0–65535."""
    if not isinstance(values, list) or not all(type(each) is int and 0 <= each <= _LARGEST_VALUE for each in values):
        raise ValueError(f"label values {values!r} are not whole numbers within 0–{_LARGEST_VALUE}")
    return tuple(values)


def _working_size(resize: Any) -> WorkingSize:
    """Check a working size, given as the long side or as height and width in pixels."""
    if not isinstance(resize, dict) or len(resize) != 1 or not resize.keys() <= {"long_side", "size"}:
        raise ValueError(f"resize {resize!r} is neither a long_side nor a size")
    sides = resize["size"] if "size" in resize else [resize["long_side"]]
    if not isinstance(sides, list) or not all(type(side) is int for side in sides):
        raise ValueError(f"resize {resize!r} has sides that are not whole numbers of pixels")
    if "long_side" in resize:
        return WorkingSize(long_side=sides[0])
    height, width = sides
    return WorkingSize(size=(height, width))


def _upsampling(upsampling: Any, form: int, family: str) -> Upsampling:
    """Check the upsampling, given by name or, from format 2 on, described in full or left to the family."""
    fixed = FAMILIES[family].upsampling
    if upsampling is None and form >= FORMAT_2 and fixed is not None:
        return fixed
    for name, known in NAMED.items():
        if upsampling in (name, asdict(known)):
            return known
    keys = [field.name for field in fields(Upsampling)]
    if form < FORMAT_2 or not isinstance(upsampling, dict) or upsampling.keys() != set(keys):
        raise ValueError(
            f"upsampling {upsampling!r} is not known in format {form}: give {' or '.join(NAMED)}, "
            f"or in format {FORMAT_2} an object of {keys}"
        )
    return Upsampling(**upsampling)


def _build_spec(metadata: Mapping[str, Any]) -> NetworkSpec:
    """Check the keys of format 1 and build the specification; unknown keys become its provenance."""
    context = metadata["context"]
    window = metadata["reference_window"]
    mean = metadata["mean_bgr"]
    palette = tuple(_colour(colour) for colour in metadata["palette"])
    ignore = metadata["ignore_label"]
    if len(mean) != 3 or not all(isinstance(value, int | float) and abs(value) <= 255 for value in mean):
        raise ValueError(f"mean_bgr {mean} is not three numbers within ±255")
    if type(ignore) is not int or not 0 <= ignore <= 255:
        raise ValueError(f"ignore_label {ignore!r} is not known")
    provenance = {key: value for key, value in metadata.items() if key not in _RESERVED}
    if _deeper(provenance, _DEEPEST):
        raise ValueError(f"its provenance is nested deeper than {_DEEPEST} levels")
    return NetworkSpec(
        classes=_class_names(metadata["classes"]),
        palette=palette,
        mean_bgr=(float(mean[0]), float(mean[1]), float(mean[2])),
        ignore_label=ignore,
        context=None if context is None else _context_spec(context),
        upsampling=_upsampling(metadata["upsampling"], metadata["format"], metadata.get("family", DILATED)),
        reference_window=None if window is None else _window(window),
        provenance=provenance,
    )


def _class_names(names: Any) -> tuple[str, ...]:
    """Check class names: tables, pages, pictures and terminals show them, so they must be short and printable."""
    if not isinstance(names, list):
        raise ValueError(f"classes are a {type(names).__name__}, not a list")
    for name in names:
        if not (isinstance(name, str) and name.isprintable() and 1 <= len(name) <= _LONGEST_NAME):
            raise ValueError(f"class name {name!r} is not 1 to {_LONGEST_NAME} printable characters")
    return tuple(names)


def _window(window: Any) -> tuple[int, int]:
    """Check the height and width in pixels of a reference window, 380–4096 each."""
    if len(window) != 2 or not all(type(side) is int and MIN_WINDOW <= side <= _LARGEST_WINDOW for side in window):
        raise ValueError(f"reference_window {window} is not two sides of {MIN_WINDOW}–{_LARGEST_WINDOW} pixels")
    return window[0], window[1]


def _deeper(value: Any, levels: int) -> bool:
    """Return whether JSON objects and lists nest deeper than `levels` levels."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(levels == 0 or _deeper(child, levels - 1) for child in children)


def _context_spec(context: Mapping[str, Any]) -> ContextSpec:
    """Check the description of a context module: 4 to 64 dilations of 1–4096, and the padding."""
    dilations = context["dilations"]
    padding = context["padding"]
    sound = (
        all(type(each) is int and 1 <= each <= _LARGEST_DILATION for each in dilations) and 4 <= len(dilations) <= 64
    )
    if padding not in ("layer", "input") or not sound:
        raise ValueError(f"context {dict(context)} is not a module of this family")
    return ContextSpec(tuple(dilations), padding)


def _colour(colour: Any) -> Color:
    """Check an RGB color of three whole numbers within 0–255."""
    if len(colour) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in colour):
        raise ValueError(f"palette colour {colour} is not three numbers within 0–255")
    return colour[0], colour[1], colour[2]
