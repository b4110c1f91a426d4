"""CUDA streams, so that independent work on a device does not wait for other work there.

A GPU executes the work of each stream in order, while the threads that queued it continue. A prediction actor has three
streams: the first copies and reflects images, the second runs the network, the third labels pixels. So the next batch
is on the device before the network has finished the current one. A thread that waits for labels does not wait for the
next batch. On a CPU, work runs when it is called, and the classes here do nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PendingTensors", "Stream", "Streams", "to_device"]


@dataclass(frozen=True)
class PendingTensors:
    """Tensors that one stream computes and another one uses.

    Attributes:
        tensors: Results, possibly not computed yet.
        computed: Event after the computation in its stream; None on a CPU.
    """

    tensors: tuple[Tensor, ...]
    computed: torch.cuda.Event | None = None

    def wait(self) -> tuple[Tensor, ...]:
        """Return the tensors for use in the calling thread's current stream: the stream waits, the thread does not."""
        if self.computed is not None:
            current = torch.cuda.current_stream(self.tensors[0].device)
            current.wait_event(self.computed)
            for tensor in self.tensors:
                # Otherwise the allocator could reuse the memory while this stream still reads it.
                tensor.record_stream(current)
        return self.tensors


class Stream:
    """Stream of a device, which starts after the work queued in the device's current stream so far.

    Args:
        device: Device of the stream; on a CPU the stream does nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream is not None:
            # Weights may still be copied in the stream in which they were queued.
            self._stream.wait_stream(torch.cuda.current_stream(device))

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Queue the calling thread's device work in this stream while the context is active."""
        with torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext():
            yield

    def record(self, tensors: Sequence[Tensor]) -> PendingTensors:
        """Return tensors that this stream computes, for use in another stream."""
        return PendingTensors(tuple(tensors), None if self._stream is None else self._stream.record_event())


@dataclass(frozen=True)
class Streams:
    """Streams of one prediction process.

    Attributes:
        inputs: Stream that copies and reflects images.
        network: Stream that runs the network.
        labels: Stream that labels pixels.
    """

    inputs: Stream
    network: Stream
    labels: Stream

    @classmethod
    def of(cls, device: torch.device) -> Streams:
        """Create three new streams of a device."""
        return cls(Stream(device), Stream(device), Stream(device))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; to a GPU asynchronously, from pinned memory, so that no other work waits."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
