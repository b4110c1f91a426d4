"""Tests of an actor's use of device streams: work is queued ahead, and no result is read before it is computed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from model.prediction.streams import PendingTensors, Stream, Streams
from pipeline.data.manifest import build_manifest
from pipeline.segmentation import segmenter as module
from pipeline.segmentation.config import SEQUENTIAL, Concurrency
from pipeline.segmentation.segmenter import Segmenter
from tests.segmentation.support import Inputs, config_of, narrow_network, segment, without_time, write_inputs
from tests.shared import STORAGE

CPU = torch.device("cpu")
LIMIT = 30.0


@pytest.fixture
def inputs(tmp_path: Any) -> Inputs:
    return write_inputs(str(tmp_path), 6)


@dataclass(frozen=True)
class LateHanded(PendingTensors):
    """Tensors that hold NaN until they are taken, like memory that a device has not written yet."""

    values: tuple[Tensor, ...] = ()

    def wait(self) -> tuple[Tensor, ...]:
        for tensor, value in zip(self.tensors, self.values, strict=True):
            tensor.copy_(value)
        return super().wait()


class LateStream(Stream):
    """Stream that records its name as the one in use by the current thread."""

    current = threading.local()

    def __init__(self, name: str) -> None:
        super().__init__(CPU)
        self.name = name

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        LateStream.current.name = self.name
        try:
            yield
        finally:
            LateStream.current.name = None

    def record(self, tensors: Sequence[Tensor]) -> PendingTensors:
        # These must not be inference tensors, because they are written later, outside of inference mode.
        values = tuple(tensor.clone() for tensor in tensors)
        return LateHanded(tuple(torch.full(value.shape, float("nan")) for value in values), values=values)


@pytest.mark.parametrize("changes", [{}, {"batch_images": 3}, {"flip": True}, {"window": 380}])
def test_nothing_is_read_before_it_is_computed(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    expected = without_time(segment(inputs, **changes))
    places = set[tuple[str, str | None]]()

    def noting(work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> Any:
            places.add((work.__name__, getattr(LateStream.current, "name", None)))
            return work(*args, **options)

        return noted

    monkeypatch.setattr(module, "score_maps", noting(module.score_maps))
    monkeypatch.setattr(module, "label_map", noting(module.label_map))
    late = Streams(LateStream("inputs"), LateStream("network"), LateStream("labels"))
    assert without_time(segment(inputs, streams=late, **changes)).equals(expected)
    assert places == {("score_maps", "network"), ("label_map", "labels")}


@dataclass
class NextOneFirst(Stream):
    """Stream whose results are ready only after the next image was queued, like a device that is never idle."""

    images: int
    given: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        super().__init__(CPU)

    def record(self, tensors: Sequence[Tensor]) -> PendingTensors:
        with self.changed:
            self.given += 1
            self.changed.notify_all()
            return Awaiting(tuple(tensors), stream=self, awaited=min(self.images, self.given + 1))


@dataclass(frozen=True)
class Awaiting(PendingTensors):
    stream: NextOneFirst | None = None
    awaited: int = 0

    def wait(self) -> tuple[Tensor, ...]:
        assert self.stream is not None
        with self.stream.changed:
            assert self.stream.changed.wait_for(lambda: self.stream.given >= self.awaited, LIMIT), "left without work"
        return super().wait()


def test_the_device_has_its_next_image_before_one_is_done(inputs: Inputs) -> None:
    streams = Streams(Stream(CPU), NextOneFirst(images=6), Stream(CPU))
    assert without_time(segment(inputs, streams=streams)).equals(without_time(segment(inputs)))


def test_a_gpu_has_a_whole_batch_ahead(inputs: Inputs) -> None:
    on_gpu = Concurrency.of(config_of(inputs), on_gpu=True)
    assert on_gpu.ahead >= 2 * on_gpu.batch > 2 and on_gpu.threads > 2 and on_gpu.shards > 2
    assert Concurrency.of(config_of(inputs), on_gpu=False).batch == 1
    assert Concurrency.of(config_of(inputs, batch_images=5), on_gpu=True).batch == 5


def test_attempts_on_a_cpu_predict_the_same_batches(inputs: Inputs) -> None:
    """An isolated attempt must compute the same bits as an ordinary one."""
    assert Concurrency.of(config_of(inputs, batch_images=5), on_gpu=False).batch == SEQUENTIAL.batch == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_streams_of_a_gpu_wait_for_each_other() -> None:
    device = torch.device("cuda")
    first = Stream(device)
    second = Stream(device)
    for _ in range(20):
        with first.use():
            matrix = torch.randn(4096, 4096, device=device)
            for _ in range(10):
                matrix = matrix @ matrix / matrix.norm()
            handed = first.record([matrix])
        with second.use():
            (taken,) = handed.wait()
            copy = taken.cpu()
        del handed, taken
        torch.cuda.synchronize()
        assert torch.equal(copy, matrix.cpu())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpus_masks_do_not_depend_on_streams(inputs: Inputs) -> None:
    config = config_of(inputs)
    manifest = list(build_manifest(STORAGE, config.images, config.labels).rows())
    network = narrow_network().cuda()
    whole = Segmenter(network, config, "run", STORAGE).segment(manifest * 20).table
    same = Stream(CPU)
    plain = Segmenter(network, config, "run", STORAGE, Streams(same, same, same)).segment(manifest * 20).table
    assert whole["mask"].equals(plain["mask"])
