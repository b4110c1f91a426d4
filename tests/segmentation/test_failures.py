"""Tests of errors that are no fault of an image: memory that ran out, and a broken CUDA context."""

from __future__ import annotations

import os
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


# Run in a process of its own, whose address space is limited to what windows of 618 pixels need, and 30 MiB more.
_LIMITED = """
    import resource, sys
    import torch
    from model.dilated.front_end import FrontEndWidths
    from pipeline.data.manifest import build_manifest
    from pipeline.segmentation import segmenter as module
    from pipeline.segmentation.supervision import ShardObserver
    from tests.segmentation import support
    from tests.shared import STORAGE

    torch.set_num_threads(1)
    # The second convolution needs most memory, while the result of the first one is alive.
    support.WIDTHS = FrontEndWidths((16, 32, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4), 6, 6)
    network = support.narrow_network()
    inputs = support.write_inputs(sys.argv[1], 0)
    STORAGE.write(f"{inputs.root}/images/0.png", support.png(support.picture(0, 480, 480)))
    windows = []
    score_maps = module.score_maps

    def recording(*args, max_window, **options):
        windows.append(max_window)
        # Smaller windows take minutes, and are not needed.
        assert max_window >= 618, windows
        return score_maps(*args, max_window=max_window, **options)

    module.score_maps = recording
    observer = ShardObserver()
    observer.overlapping = False

    def row(window):
        config = support.config_of(inputs, labels=None, window=window)
        rows = list(build_manifest(STORAGE, config.images).rows())
        (found,) = module.Segmenter(network, config, "run", STORAGE).segment(rows, observer).table.to_pylist()
        return found["mask"], found["error_message"]

    def limit(size):
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))

    row(618)
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmPeak"))
    limit(peak * 1024 + 30 * 2**20)
    scarce = row(1236)
    limit(resource.RLIM_INFINITY)
    assert windows == [618, 1236, 618], windows
    assert scarce == row(1236) and scarce[0] is not None, scarce[1]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc of Linux")
def test_an_image_gets_the_windows_that_fit_into_memory(tmp_path: object) -> None:
    """Limit: real memory, which the failed attempt must have given back before the next one."""
    # The sizes of large blocks are then the only memory that changes, and freed blocks go back at once.
    allocator = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "1000000", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(_LIMITED), str(tmp_path)]
    environment = {**os.environ, **allocator}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
