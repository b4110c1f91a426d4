"""Front end of an imported network: the program of torch.export, with its input function and its padding."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model.errors import CheckpointError
from model.files.metadata import truncate_text
from model.networks.front_end import FrontEnd, FrontEndWidths
from model.networks.network import Network, NetworkSpec
from model.networks.program.archive import Archive, judge
from model.networks.program.description import Description, ProgramInput
from model.prediction.dense_prediction import predict

__all__ = [
    "TOLERANCE",
    "ProgramFrontEnd",
    "build_program",
    "check_golden",
    "drawn_image",
    "network_from_archive",
    "standardize",
]

# Share of the golden image's labels that may differ on another machine, whose rounding differs.
TOLERANCE = 0.005
_LEAST = 1e-12  # smallest probability, before the logarithm
_PAD_MODES = {"reflect": "reflect", "edge": "replicate", "zeros": "constant"}


class ProgramFrontEnd(FrontEnd):
    """Program with one input (N, 3, H, W) and one output (N, C, h, w).

    It pads by itself, so windows are clipped at the image's border. It cannot be trained or written.

    Args:
        program: Module of the exported program.
        description: Description of the program's input and output.
        golden: Labels of the golden image, (H, W) bytes; None: the archive has none.
    """

    parts: Mapping[str, tuple[str, ...]] = {"features": (), "head": (), "scores": ()}

    def __init__(self, program: nn.Module, description: Description, golden: bytes | None = None) -> None:
        super().__init__()
        self.footprint = description.footprint()
        self.program = program
        self.description = description
        self.golden = golden

    @classmethod
    def build(cls, spec: NetworkSpec, widths: FrontEndWidths | None, dropout: float) -> Self:
        """Refuse: an imported network cannot be made from a recipe."""
        raise ValueError("an imported network cannot be trained: train it where it comes from, and import it again")

    @classmethod
    def from_tensors(cls, spec: NetworkSpec, tensors: Mapping[str, Tensor]) -> Self:
        """Refuse: the weights of an imported network lie in its archive."""
        raise CheckpointError("an imported network is a .pt2 archive, not a safetensors file")

    def features(self, images: Tensor) -> Tensor:
        """Return the program's input: (N, 3, H, W) BGR, 0–255 → (N, 3, H', W') standardized and padded."""
        given = self.description.input
        channels = images.flip(1) if given.channels == "RGB" else images
        return _pad(standardize(channels, given), given).contiguous(memory_format=torch.channels_last)

    def head(self, features: Tensor) -> Tensor:
        """Return the scores, (N, C, h, w), of the program's input; probabilities become their logarithms."""
        scores: Tensor = self.program(features)
        if self.description.output.values == "probabilities":
            return scores.float().clamp_min(_LEAST).log()
        return scores


def standardize(channels: Tensor, given: ProgramInput) -> Tensor:
    """Return standardized pixels, (N, 3, H, W), of channels of 0–255 in the order of the program."""
    mean, std = (torch.tensor(each, device=channels.device).view(3, 1, 1) for each in (given.mean, given.std))
    return (channels * given.scale - mean) / std


def _pad(images: Tensor, given: ProgramInput) -> Tensor:
    """Pad images, (N, 3, H, W), at the right and the bottom to a size that the program takes."""
    height, width = images.shape[2:]
    if given.fixed is not None:
        if height > given.fixed[0] or width > given.fixed[1]:
            raise ValueError(f"a window of {height}×{width} pixels exceeds the fixed input {given.fixed}")
        below, right = given.fixed[0] - height, given.fixed[1] - width
    else:
        below, right = (_padded(side, given) - side for side in (height, width))
    # torch reflects by less than the side at a time.
    while below or right:
        down, across = below, right
        if given.pad == "reflect":
            down, across = min(below, images.shape[2] - 1), min(right, images.shape[3] - 1)
        mode = _PAD_MODES[given.pad]
        if (below and not down) or (right and not across):
            mode, down, across = "replicate", below, right
        images = functional.pad(images, (0, across, 0, down), mode)
        below, right = below - down, right - across
    return images


def _padded(side: int, given: ProgramInput) -> int:
    """Return the length of a side after padding to the minimum and to a multiple, pixels."""
    return -(-max(side, given.minimum) // given.multiple_of) * given.multiple_of


def network_from_archive(data: bytes) -> Network:
    """Build the network of an imported archive, in evaluation mode, on the CPU.

    Args:
        data: Content of the archive, from anyone.

    Raises:
        CheckpointError: If the archive is refused, is none of this project, or its program cannot be built.
    """
    archive = judge(data)
    if archive.description is None:
        raise CheckpointError("the archive was not imported: make a network of it with jobs/import_network.py")
    described = Description.of(archive.description)
    program = build_program(archive)
    front_end = ProgramFrontEnd(program, described, archive.golden)
    return Network(described.spec(), front_end, None).eval().requires_grad_(False)


def build_program(archive: Archive) -> nn.Module:
    """Build the module of a judged program, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If torch cannot build it.
    """
    try:
        program: nn.Module = torch.export.load(io.BytesIO(archive.data)).module(check_guards=False)
    except Exception as error:  # torch raises many kinds for a program that contradicts itself
        raise CheckpointError(
            f"torch {torch.__version__} cannot build the program, written by torch {archive.torch_version} "
            f"({truncate_text(error)}): export it with this version of torch"
        ) from error
    # Exported modules replace these methods by ones that refuse every call.
    for method in ("eval", "train"):
        program.__dict__.pop(method, None)
    # The input is channels last as well, which saves a change of layout around every convolution.
    return program.to(memory_format=torch.channels_last)


def drawn_image(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return the image of a golden test, (H, W, 3) uint8: blocks of random colors with noise."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3))
    smooth = blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    noisy = smooth + rng.normal(0, 10, smooth.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def check_golden(network: Network) -> None:
    """Predict the golden image of an imported network, and refuse a machine on which too many labels differ.

    Networks of other families have no golden image and pass.

    Raises:
        CheckpointError: If more than `TOLERANCE` of the labels differ, or the stored labels are not those described.
    """
    front_end = network.front_end
    if not isinstance(front_end, ProgramFrontEnd):
        return
    check = front_end.description.check
    golden = front_end.golden
    if golden is None or hashlib.sha256(golden).hexdigest() != check.labels_sha256:
        raise CheckpointError("the golden labels of the imported network are missing or damaged: import it again")
    expected = np.frombuffer(golden, np.uint8)
    labels = predict(network, drawn_image(check.seed, *check.size)).labels.ravel()
    share = float(np.mean(labels != expected)) if labels.shape == expected.shape else 1.0
    if share > TOLERANCE:
        raise CheckpointError(
            f"on this machine {share:.1%} of the golden image's labels differ from those at import (at most "
            f"{TOLERANCE:.1%} may): import the network again with torch {torch.__version__}, or use the other version"
        )
