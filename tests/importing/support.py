"""A small network of plain PyTorch, as a user may have one, and its exported archive."""

from __future__ import annotations

import functools
import io

import torch
from torch import Tensor, nn

from pipeline.importing.importer import Imported, import_network
from pipeline.importing.request import ImportRequest
from tests.shared import STORAGE

CLASSES = "road,sky,tree,car"
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class SmallNetwork(nn.Module):
    """Convolutions of stride 4 in all, with a halo of 13 pixels, or with a mean over the whole image."""

    def __init__(self, classes: int = 4, *, whole: bool = False) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(8, 8, 3, padding=4, dilation=4)
        self.down2 = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.last = nn.Conv2d(8, classes, 1)
        self.whole = whole

    def forward(self, images: Tensor) -> Tensor:
        maps = self.down2(self.wide(self.down(images).relu()).relu()).relu()
        if self.whole:
            maps = maps * (1 + maps.mean(dim=(2, 3), keepdim=True))
        return self.last(maps)


class TwoOutputs(nn.Module):
    """Network that returns its map under a name, beside another output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"features": images.mean(), "out": self.network(images)}


def small_network(*, whole: bool = False, seed: int = 0) -> SmallNetwork:
    torch.manual_seed(seed)
    network = SmallNetwork(whole=whole).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
    return network


def exported(network: nn.Module) -> bytes:
    """Return the archive that a user's torch.export.save writes, for every size."""
    any_size = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, 3, 64, 96)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: any_size, 2: any_size, 3: any_size},))
    sink = io.BytesIO()
    torch.export.save(program, sink)
    return sink.getvalue()


@functools.cache
def archive_of(*, whole: bool = False) -> bytes:
    """Return the archive of `small_network`; cached, as an export takes a second."""
    return exported(small_network(whole=whole))


@functools.cache
def imported(folder: str, *, whole: bool = False) -> Imported:
    """Import `small_network` by way of a file in `folder`; cached."""
    source = f"{folder}/user-{whole}.pt2"
    STORAGE.write(source, archive_of(whole=whole))
    return import_network(request(source), STORAGE)


def request(source: str, **changes: object) -> ImportRequest:
    settings = {"source": source, "classes": CLASSES, "mean": MEAN, "std": STD}
    return ImportRequest.model_validate({**settings, **changes})
