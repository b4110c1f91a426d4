"""Import of one network: read the source, export it, measure it, and write the archive that the jobs predict with."""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.networks.network import Network
from model.networks.program.archive import add_extras, is_archive
from model.networks.program.description import Check, Description, ProgramContext, ProgramInput, ProgramOutput
from model.networks.program.front_end import (
    ProgramFrontEnd,
    drawn_image,
    network_from_archive,
    standardize,
)
from model.prediction.dense_prediction import predict
from pipeline.data.class_files import choose_palette, read_classes
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, ObjectMissing
from pipeline.importing.export import export, judged, module_of, saved
from pipeline.importing.measure import MULTIPLES, Measured, find_bound, find_sizes
from pipeline.importing.published import from_huggingface, from_segmentation_models, from_torchvision
from pipeline.importing.request import ImportRequest
from pipeline.importing.source import Selected, Source, Stated

__all__ = ["Imported", "import_network"]

_TORCHVISION = "torchvision:"
_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
_GOLDEN = (176, 208)  # pixels
# Lengths of test images beyond the smallest window, and their width, pixels: their residues differ for all multiples.
_BEYOND = (101, 105, 113, 129)
_THIN = 91
_GRID = 32  # pixels; the coarsest stride of most networks


@dataclass(frozen=True)
class Imported:
    """Archive that was made, and what was found.

    Attributes:
        data: Content of the archive.
        description: Description in the archive.
        notes: Sentences about what an owner should know.
    """

    data: bytes
    description: Description
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return what was found in a few lines."""
        found = self.description
        given = found.input
        halo = found.context.halo
        sizes = "any size" if given.fixed is None else f"{given.fixed[0]}×{given.fixed[1]} pixels alone"
        if given.fixed is None and given.multiple_of > 1:
            sizes = f"multiples of {given.multiple_of} pixels (images are padded)"
        reach = (
            f"pixels up to {halo} away can change a label: windows give the labels of whole images"
            if halo is not None
            else f"a label depends on the whole image: larger images are predicted in windows that overlap by "
            f"{found.context.overlap} pixels, and the window decides their labels"
        )
        lines = [
            f"{found.source.get('architecture') or found.source.get('layout')}: {len(found.classes)} classes, "
            f"a score every {found.output.stride} pixels, input of {sizes}",
            f"pixels: {given.channels}, ({given.scale:.6g} · value - {list(given.mean)}) / {list(given.std)}"
            + (f", resized to {found.resize}" if found.resize else ""),
            reach,
            *self.notes,
        ]
        return "\n".join(lines)


def import_network(request: ImportRequest, storage: Storage | None = None) -> Imported:
    """Make the archive of a network; nothing is written.

    Args:
        request: Source and options of the import.
        storage: Storage of the source; None: default retries.

    Raises:
        ConfigError: If the source cannot be read or exported, or does not state what is needed.
        StorageError: If storage fails.
    """
    storage = storage or Storage()
    source = _read(request, storage)
    if request.dynamic and request.fixed is not None:
        raise ConfigError("--dynamic and --fixed exclude each other: give one of them")
    program, fixed = export(source.network, request.fixed, dynamic=request.dynamic)
    archive = judged(saved(program))
    module = module_of(archive)
    least = 1 if fixed else max((int(bounds.lower) for bounds in program.range_constraints.values()), default=1)
    description = _describe(request, source, module, least, fixed, storage)
    notes: list[str] = []
    if request.fixed is None and fixed is not None:
        notes.append(f"the network could be exported for inputs of {fixed[0]}×{fixed[1]} pixels alone")
    description, seam = _check_tiles(module, description)
    golden = predict(_network(module, description), drawn_image(description.check.seed, *description.check.size))
    labels = golden.labels.tobytes()
    check = description.check.model_copy(update={"labels_sha256": hashlib.sha256(labels).hexdigest()})
    description = description.model_copy(update={"check": check})
    data = add_extras(archive.data, description.model_dump(mode="json"), labels)
    # Read as an actor does: what is written can be used.
    network_from_archive(data)
    return Imported(data, description, (*notes, *seam))


def _read(request: ImportRequest, storage: Storage) -> Source:
    """Read the network that the source names."""
    if request.source.startswith(_TORCHVISION):
        if request.weights is None:
            raise ConfigError(f"{request.source} has no weights of its own here: give --weights FILE")
        name = request.source.removeprefix(_TORCHVISION)
        return from_torchvision(name, storage.read(request.weights), request.weights)
    if request.weights is not None:
        raise ConfigError(f"--weights is for {_TORCHVISION}NAME: {request.source} holds its own weights")
    if not request.source.lower().endswith(".pt2"):
        return _read_folder(request.source, storage)
    try:
        data = storage.read(request.source)
    except ObjectMissing as error:
        raise ConfigError(f"{error}: give the URI of an archive that torch.export.save wrote") from error
    if not is_archive(data):
        raise ConfigError(f"{request.source} is no archive of torch.export: write it with torch.export.save")
    archive = judged(data)
    key = request.output_key
    network = Selected(module_of(archive), int(key) if key is not None and key.isdecimal() else key)
    return Source(network, Stated(), record={"layout": "torch.export", "uri": request.source})


def _read_folder(uri: str, storage: Storage) -> Source:
    """Read a network from a folder in the layout of transformers or segmentation_models_pytorch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in _FILES:
            try:
                (folder / file).write_bytes(storage.read(join(uri, file)))
            except ObjectMissing:
                if file != "preprocessor_config.json":
                    raise ConfigError(
                        f"there is no {file} in {uri}: give a folder with config.json and model.safetensors, a .pt2 "
                        f"archive, or {_TORCHVISION}NAME. Pickles (pytorch_model.bin, .pth) are never loaded"
                    ) from None
        # transformers names the kind of network; segmentation_models_pytorch names its class.
        text = (folder / "config.json").read_text(errors="replace")
        reader = from_segmentation_models if '"_model_class"' in text else from_huggingface
        return reader(folder, uri)


def _describe(
    request: ImportRequest,
    source: Source,
    module: nn.Module,
    least: int,
    fixed: tuple[int, int] | None,
    storage: Storage,
) -> Description:
    """Describe the network: what is stated or given, and what is measured.

    Args:
        request: Source and options of the import.
        source: Network that was read.
        module: Its exported program.
        least: Least height and width that the program states, pixels.
        fixed: Only height and width that the program takes; None: others too.
        storage: Storage of the classes file.
    """
    stated = source.stated
    given = _input(request, stated, fixed)

    @torch.inference_mode()
    def scores(images: Tensor) -> Tensor:
        made: Tensor = module(standardize(images, given))
        return made

    measured = find_sizes(scores, least, stated.multiple_of, fixed)
    unit = math.lcm(measured.stride, measured.multiple_of)
    bound = None if fixed else find_bound(scores, unit, measured.minimum)
    phase, halo = bound or (math.lcm(unit, _GRID), None)
    names, palette, ignore = _classes(request, stated, measured, storage)
    # Between cells of a coarse map, the original pipelines interpolate without aligned corners.
    anchor = (measured.stride - 1) / 2 if source.upsampled else 0.0
    return Description(
        classes=names,
        palette=palette,
        ignore_label=ignore,
        input=given.model_copy(update={"multiple_of": measured.multiple_of, "minimum": measured.minimum}),
        output=ProgramOutput(
            key=request.output_key,
            stride=measured.stride,
            anchor=anchor,
            values=request.values,
            interpolates="scores" if request.values == "scores" else "probabilities",
        ),
        resize=stated.resize,  # type: ignore[arg-type]
        context=ProgramContext(halo=halo, phase=phase, overlap=request.overlap),
        source={**source.record, "torch": torch.__version__},
        license=request.license,
        check=Check(
            seed=0,
            size=fixed or (max(_GOLDEN[0], measured.minimum), max(_GOLDEN[1], measured.minimum)),
            labels_sha256="",
        ),
    )


def _input(request: ImportRequest, stated: Stated, fixed: tuple[int, int] | None) -> ProgramInput:
    """Return the input function; options win over what is stated.

    Raises:
        ConfigError: If neither says what is needed; the message names it.
    """
    mean = request.mean or stated.mean
    std = request.std or stated.std
    if missing := [name for name, value in (("--mean", mean), ("--std", std)) if value is None]:
        raise ConfigError(
            f"the files of {request.source} do not say how pixels are standardized: give {' and '.join(missing)} of "
            "each channel after scaling (0 0 0 and 1 1 1: not at all)"
        )
    assert mean is not None and std is not None
    scale = request.scale or stated.scale or 1 / 255
    channels: Any = request.channels or stated.channels or "RGB"
    return ProgramInput(channels=channels, scale=scale, mean=mean, std=std, fixed=fixed)


def _classes(
    request: ImportRequest, stated: Stated, measured: Measured, storage: Storage
) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...], int]:
    """Return class names, palette and ignore label; options win over what is stated."""
    names, ignore = stated.classes, stated.ignore_label
    palette = None
    if request.classes is not None:
        if request.classes.lower().endswith((".csv", ".json")):
            space = read_classes(storage, request.classes)
            names, palette = space.classes, space.palette
        else:
            names = tuple(name.strip() for name in request.classes.split(","))
    if names is None:
        raise ConfigError(
            f"the files of {request.source} name no classes: give --classes, a classes file or {measured.classes} "
            "names separated by commas, in the order of the network's outputs"
        )
    if len(names) != measured.classes:
        raise ConfigError(
            f"the network has {measured.classes} outputs, but {len(names)} classes are named: "
            f"{', '.join(names)[:200]}. Give --classes with one name per output"
        )
    if request.palette is not None:
        palette = _palette(request.palette, len(names))
    chosen = palette or tuple(choose_palette(len(names)))
    given = request.ignore_label if request.ignore_label is not None else ignore
    return names, chosen, 255 if given is None else given


def _palette(text: str, count: int) -> tuple[tuple[int, int, int], ...]:
    """Parse colors such as `#804080,#464646`."""
    colors = [color.strip().removeprefix("#") for color in text.split(",")]
    if len(colors) != count or not all(re.fullmatch("[0-9a-fA-F]{6}", color) for color in colors):
        raise ConfigError(f"--palette {text[:100]} is not {count} colors such as #804080, separated by commas")
    return tuple((red, green, blue) for red, green, blue in map(bytes.fromhex, colors))


def _network(module: nn.Module, description: Description) -> Network:
    return Network(description.spec(), ProgramFrontEnd(module, description), None).eval()


def _check_tiles(module: nn.Module, description: Description) -> tuple[Description, list[str]]:
    """Compare tiles with whole images; a halo that does not hold is given up, and a note says so.

    Programs that interpolate to the size of the image do so by a factor that depends on it, unless the size is a
    multiple of their stride. So larger multiples are tried, to which images are then padded.
    """
    context = description.context
    if context.halo is None:
        return description, []
    share = 0.0
    for multiple in (each for each in MULTIPLES if each % description.input.multiple_of == 0):
        given = description.input.model_copy(
            update={"multiple_of": multiple, "minimum": -(-description.input.minimum // multiple) * multiple}
        )
        phase = math.lcm(context.phase, multiple)
        tried = description.model_copy(update={"input": given, "context": context.model_copy(update={"phase": phase})})
        share = _changed_by_tiles(_network(module, tried))
        if share == 0:
            return tried, []
    note = f"tiles changed {share:.2%} of a test image's labels: windows overlap as if a label depended on all pixels"
    return description.model_copy(update={"context": _unbounded(context.overlap, description)}), [note]


def _changed_by_tiles(network: Network) -> float:
    """Return the largest share of labels that the smallest windows change in two test images."""
    smallest = network.front_end.footprint.min_window
    shares: list[float] = []
    # Long and thin, as several windows along one axis are enough.
    for beyond in _BEYOND:
        size = (smallest + beyond, _THIN) if len(shares) % 2 else (_THIN, smallest + beyond)
        image = drawn_image(1, *size)
        whole = predict(network, image, max_window=2 * smallest).labels
        tiled = predict(network, image, max_window=smallest).labels
        shares.append(float((whole != tiled).mean()))
    return max(shares)


def _unbounded(overlap: int, description: Description) -> ProgramContext:
    """Return the context of a network without a bound; its windows start on a grid that suits most networks."""
    unit = math.lcm(description.output.stride, description.input.multiple_of, _GRID)
    return ProgramContext(halo=None, phase=unit, overlap=overlap)
