"""Work on a device that need not wait for other work there.

A GPU does what it is given in order, stream by stream, while the threads that gave it go on. An actor that predicts has
three streams: images are copied and reflected in the first, the network runs in the second, pixels are labelled in the
third. So the next batch is there before the network has done with this one, and whoever waits for labels does not wait
for the batch after them. On a CPU work is done as it is given, and all of this is nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Handed", "Stream", "Streams", "to_device"]


@dataclass(frozen=True)
class Handed:
    """Tensors that one stream computes and another one uses."""

    tensors: tuple[Tensor, ...]
    computed: torch.cuda.Event | None = None

    def take(self) -> tuple[Tensor, ...]:
        """The tensors, for the calling thread's current stream: that waits for them, the thread does not."""
        if self.computed is not None:
            current = torch.cuda.current_stream(self.tensors[0].device)
            current.wait_event(self.computed)
            for tensor in self.tensors:
                # Else the memory would be given to someone else while this stream may still be reading.
                tensor.record_stream(current)
        return self.tensors


class Stream:
    """A stream of a device; it begins with what the device has been given so far."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            # Weights may still be on their way in the stream that they were given to.
            self._stream.wait_stream(torch.cuda.current_stream(device))

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """What the calling thread gives the device meanwhile goes into this stream."""
        with torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext():
            yield

    def hand_over(self, tensors: Sequence[Tensor]) -> Handed:
        """What this stream was given to compute, for another one."""
        return Handed(tuple(tensors), None if self._stream is None else self._stream.record_event())


@dataclass(frozen=True)
class Streams:
    """Of one process that predicts."""

    inputs: Stream
    network: Stream
    labels: Stream

    @classmethod
    def of(cls, device: torch.device) -> Streams:
        """New ones."""
        return cls(Stream(device), Stream(device), Stream(device))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy that waits for nothing that the device is doing, and makes nothing wait: out of pinned memory."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
