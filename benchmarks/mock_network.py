"""Mock network that takes a chosen device time per image and no CPU time, images for it, and an actor that uses it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from demo.street.scene import encode_scene
from model.files.checkpoint import to_bytes
from model.networks.dilated.geometry import front_end_cells
from model.networks.dilated.networks import front_end_only
from model.networks.front_end import FrontEndWidths
from model.networks.network import Network, NetworkSpec
from model.prediction.streams import PendingTensors, Stream, Streams
from pipeline.ray_backend.shard_actor import ShardActor

__all__ = ["SPEC", "StandInActor", "stand_in", "write_images", "write_network"]

CLASSES = 11
SIZE = (480, 360)
_DRAWN = 40
SPEC = NetworkSpec(
    tuple(f"class {n}" for n in range(CLASSES)),
    tuple((20 * n, 255 - 20 * n, 7) for n in range(CLASSES)),
    (110.0, 110.0, 110.0),
)


class _Still(nn.Module):
    """Mock front end that returns smooth scores of the right size after `seconds` for every image."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        # A parameter, because callers look up the network's device and type there.
        self.seconds = seconds
        self.anything = nn.Parameter(torch.zeros(1))
        self._coarse = 4 * torch.randn(1, CLASSES, 8, 10, generator=torch.Generator().manual_seed(0))
        self._scores: dict[tuple[int, int], Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        ends = time.perf_counter() + self.seconds * len(images)
        size = front_end_cells(images.shape[2]), front_end_cells(images.shape[3])
        if size not in self._scores:
            self._scores[size] = nn.functional.interpolate(self._coarse, size=size, mode="bilinear")
        time.sleep(max(0.0, ends - time.perf_counter()))
        return self._scores[size].expand(len(images), -1, -1, -1)


@dataclass(frozen=True)
class _Due(PendingTensors):
    """Result that becomes available at `due`, a time of `time.perf_counter`."""

    due: float = 0.0

    def wait(self) -> tuple[Tensor, ...]:
        """Sleep until the result is due, then return the tensors."""
        time.sleep(max(0.0, self.due - time.perf_counter()))
        return super().wait()


class _PacedStream(Stream):
    """Stream of a mock device that processes one image every `seconds` while the threads that queue work go on."""

    def __init__(self, seconds: float) -> None:
        super().__init__(torch.device("cpu"))
        self._seconds = seconds
        self._free = 0.0
        self._lock = threading.Lock()

    def record(self, tensors: Sequence[Tensor]) -> PendingTensors:
        """Return the tensors with the time at which the mock device has processed them after all earlier ones."""
        with self._lock:
            self._free = max(self._free, time.perf_counter()) + self._seconds
            return _Due(tuple(tensors), due=self._free)


def stand_in(seconds: float = 0.0, spec: NetworkSpec = SPEC) -> Network:
    """Return a network of 11 classes without arithmetic; a call blocks for `seconds` per image."""
    # The network only calls its front end and uses no other member of it.
    return Network(spec, _Still(seconds), None)  # type: ignore[arg-type]


class StandInActor(ShardActor):
    """Actor with a mock network and device, if the checkpoint's provenance gives the device's seconds per image."""

    def network(self, checkpoint: bytes) -> Network:
        """Return the mock network, or the checkpoint's own one."""
        network = super().network(checkpoint)
        return stand_in(spec=network.spec) if "stand_in_seconds" in network.spec.provenance else network

    def streams(self, network: Network) -> Streams:
        """Return the streams of the mock device, or the network's own."""
        streams = super().streams(network)
        seconds = network.spec.provenance.get("stand_in_seconds")
        return streams if seconds is None else replace(streams, network=_PacedStream(float(seconds)))


def write_network(path: Path, *, width: float = 0.0, seconds: float | None = None) -> Path:
    """Write a checkpoint, and return its path.

    Args:
        path: File to write.
        width: Widths of the network as a share of VGG-16's.
        seconds: Seconds per image of a mock device; None: the network itself runs.
    """
    torch.manual_seed(0)
    provenance = {} if seconds is None else {"stand_in_seconds": seconds}
    spec = NetworkSpec(SPEC.classes, SPEC.palette, SPEC.mean_bgr, provenance=provenance)
    path.write_bytes(to_bytes(front_end_only(spec, FrontEndWidths.vgg16(width))))
    return path


def write_images(folder: Path, count: int) -> Path:
    """Write `count` JPEGs of drawn scenes, 480x360 pixels, and return the folder.

    At most 40 pictures differ; further files repeat them under other names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for seed in range(min(count, _DRAWN)):
        sink = io.BytesIO()
        picture, _ = encode_scene(seed)
        Image.open(io.BytesIO(picture)).resize(SIZE).save(sink, "JPEG", quality=90)
        drawn.append(sink.getvalue())
    for index in range(count):
        (folder / f"{index:06d}.jpg").write_bytes(drawn[index % len(drawn)])
    return folder
