"""Tests of errors that are no fault of an image: memory that ran out, and a broken CUDA context."""

from __future__ import annotations

import subprocess
import sys
import textwrap
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
]
OTHER = [RuntimeError("The size of tensor a (3) must match"), ValueError("CUDA error"), OSError("CUDA error")]


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
