"""Export of a network, and its archive as torch writes it."""

from __future__ import annotations

import io
import logging
from typing import Any

import torch
from torch import nn

from model.errors import CheckpointError
from model.files.metadata import truncate_text
from model.networks.program.archive import Archive, judge
from model.networks.program.front_end import build_program
from pipeline.errors import ConfigError

__all__ = ["export", "judged", "module_of", "saved"]

logger = logging.getLogger(__name__)
_TILE = (512, 512)  # pixels; of a network that cannot be exported for every size


def export(
    network: nn.Module, fixed: tuple[int, int] | None, *, dynamic: bool = False
) -> tuple[Any, tuple[int, int] | None]:
    """Export a network for every size, or for one tile if it cannot be.

    Args:
        network: Network in evaluation mode, from (N, 3, H, W) to (N, C, h, w).
        fixed: Height and width in pixels to export alone; None: every size, if that is possible.
        dynamic: Whether to refuse a network that cannot be exported for every size.

    Returns:
        The program, and its tile; None: every size.

    Raises:
        ConfigError: If torch cannot export it even for one tile.
    """
    any_size = torch.export.Dim.DYNAMIC
    shapes: list[tuple[dict[int, Any], tuple[int, int] | None, tuple[int, ...]]] = []
    if fixed is None:
        shapes.append(({0: any_size, 2: any_size, 3: any_size}, None, (2, 3, 256, 320)))
    tile = fixed or _TILE
    # Some networks take one image at a time.
    if not dynamic:
        shapes += [({0: any_size}, tile, (2, 3, *tile)), ({}, tile, (1, 3, *tile))]
    reason = ""
    for sizes, only, example in shapes:
        try:
            return torch.export.export(network, (torch.zeros(example),), dynamic_shapes=(sizes,)), only
        except Exception as error:  # torch raises many kinds
            reason = truncate_text(error)
            logger.info("not exported for %s: %s", "one tile" if only else "every size", reason)
    size = "every size" if dynamic else f"{tile[0]}×{tile[1]} pixels"
    raise ConfigError(f"torch.export cannot export the network for {size}: {reason}")


def saved(program: Any) -> bytes:
    """Return the archive of an exported program."""
    sink = io.BytesIO()
    torch.export.save(program, sink)
    return sink.getvalue()


def judged(data: bytes) -> Archive:
    """Check an archive.

    Raises:
        ConfigError: If it is refused.
    """
    try:
        return judge(data)
    except CheckpointError as error:
        raise ConfigError(f"the program is refused: {error}") from error


def module_of(archive: Archive) -> nn.Module:
    """Build the module of an archive.

    Raises:
        ConfigError: If torch cannot build it.
    """
    try:
        return build_program(archive)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
