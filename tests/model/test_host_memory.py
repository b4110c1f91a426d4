"""Tests of kept memory: after a few rounds, the same work touches no new page on any thread."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from model.kernels.host_memory import ALLOCATOR_ENVIRONMENT

# Script with maps of three sizes, as layers have them, above and below the size from which malloc uses mmap.
ROUNDS = """
    import resource, sys, threading
    from concurrent.futures import ThreadPoolExecutor
    import torch
    from model.kernels.host_memory import keep_freed_memory

    torch.set_num_threads(1)

    turn, together = threading.Lock(), threading.Barrier(4)

    def faults():
        with turn:
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            for mebibytes in (48, 24, 6):
                torch.ones(mebibytes * 2**18).add_(1)
            return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    def in_a_thread(_):
        found = [faults() for _ in range(8)]
        # None ends before all have begun: each has a heap of its own, if there is more than one.
        together.wait(60)
        return found

    if sys.argv[1] == "by call":
        assert keep_freed_memory()
        print(*(faults() for _ in range(8)))
    else:
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(in_a_thread, range(4)):
                print(*found)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's allocator")
@pytest.mark.parametrize(("way", "kept"), [("by environment", True), ("by call", True), ("by default", False)])
def test_memory_is_touched_once(way: str, kept: bool) -> None:
    environment = os.environ | (ALLOCATOR_ENVIRONMENT if way == "by environment" else {})
    command = [sys.executable, "-c", textwrap.dedent(ROUNDS), way]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    threads = [[int(faults) for faults in line.split()] for line in done.stdout.splitlines()]
    assert len(threads) == (1 if way == "by call" else 4)
    assert max(found[0] for found in threads) > 1000
    assert all((found[-1] < 1000) is kept for found in threads), done.stdout
