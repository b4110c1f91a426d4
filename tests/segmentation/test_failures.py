"""Tests of errors that are no fault of an image: memory that ran out, and a broken CUDA context."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.ray_backend import shard_actor
from pipeline.ray_backend.shard_actor import ShardActor
from pipeline.segmentation.failures import context_is_broken, end_if_context_is_broken, out_of_memory
from pipeline.segmentation.supervision import Attempt

BROKEN = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb)`"),
    RuntimeError("CUDA error: unspecified launch failure"),
    torch.AcceleratorError("CUDA error: misaligned address"),
]
NO_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("could not create a primitive"),
]
OTHER = [
    RuntimeError("The size of tensor a (3) must match"),
    RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
    ValueError("CUDA error"),
    OSError("CUDA error"),
]
# Segments an image with small windows and with one large window, and measures the address space that each needs. Then
# the large window no longer fits. A heap that gives every large block back at once keeps the measurements exact.
LIMITED = """
    import re, resource, sys
    import torch
    from pathlib import Path
    from model.networks.front_end import FrontEndWidths
    from model.networks.dilated.networks import dilation8
    from model.networks.network import NetworkSpec
    from pipeline.data.manifest import build_manifest
    from pipeline.segmentation.config import SegmentConfig
    from pipeline.segmentation.segmenter import Segmenter
    from tests.segmentation.support import picture, png
    from tests.shared import STORAGE

    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = NetworkSpec(("a", "b"), ((0, 0, 0), (1, 1, 1)), (110.0, 115.0, 120.0))
    network = dilation8(spec, FrontEndWidths((16, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2), 2, 2)).eval()
    for parameter in network.front_end.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim == 4 else 0.1)
    folder = Path(sys.argv[1])
    (folder / "image.png").write_bytes(png(picture(0, 500, 500)))

    def segment(window):
        options = {"images": str(folder), "checkpoint": "none", "output": "none", "window": window}
        config = SegmentConfig.model_validate(options)
        rows = list(build_manifest(STORAGE, config.images, None).rows())
        return Segmenter(network, config, "run", STORAGE).segment(rows).table.select(["status", "mask", "classes"])

    def peak():
        return 1024 * int(re.search(r"VmPeak:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    segment(618)
    small = peak()
    unlimited = segment(1236)
    large = peak()
    assert unlimited["status"].to_pylist() == ["ok"] and large - small > 40 * 2**20, (small, large)
    resource.setrlimit(resource.RLIMIT_AS, ((small + large) // 2, resource.RLIM_INFINITY))
    assert segment(1236).equals(unlimited)
"""


@pytest.mark.parametrize("error", BROKEN, ids=str)
def test_a_broken_context_ends_the_process(error: Exception) -> None:
    """Fault: a CUDA error after which every later image would fail."""
    codes: list[int] = []
    end_if_context_is_broken(error, codes.append)
    assert codes == [70] and context_is_broken(error) and not out_of_memory(error)


@pytest.mark.parametrize("error", [*NO_MEMORY, *OTHER], ids=str)
def test_other_errors_leave_the_process_alone(error: Exception) -> None:
    """Fault: errors after which the process can work on."""
    codes: list[int] = []
    end_if_context_is_broken(error, codes.append)
    assert codes == [] and out_of_memory(error) == (error in NO_MEMORY)


@pytest.mark.parametrize("error", BROKEN[:1], ids=str)
def test_an_actor_ends_before_it_reports_a_broken_context(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: a CUDA error while an actor works on a shard."""

    def failing(*_: object) -> object:
        raise error

    ended: list[BaseException] = []
    monkeypatch.setattr(shard_actor, "end_if_context_is_broken", ended.append)
    actor: Any = object.__new__(ShardActor)
    actor._task = SimpleNamespace(board=None)
    actor._watchdog = None
    actor._segmenter = SimpleNamespace(segment=failing)
    actor._manifest = SimpleNamespace(rows=lambda shard: [])
    with pytest.raises(RuntimeError):
        actor._work(0, Attempt())
    assert ended == [error]


def test_the_process_ends_with_the_code_of_a_hang() -> None:
    """Fault: a CUDA error; neither cleanup nor other threads may hold the process."""
    code = """
        import threading, time
        from pipeline.segmentation.failures import end_if_context_is_broken
        threading.Thread(target=time.sleep, args=(1000,)).start()
        end_if_context_is_broken(RuntimeError("CUDA error: an illegal memory access was encountered"))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 70 and "illegal memory access" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux states the peak of the address space")
def test_memory_that_really_runs_out_is_answered_with_smaller_windows(tmp_path: Path) -> None:
    """Limit: an address space with room for small windows only; the mask is that of a process without limit."""
    heap = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, **heap}, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0 and done.stderr == "out of memory, trying windows of 618 pixels\n", done.stderr
