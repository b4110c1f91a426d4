"""Memory that is kept: after a few rounds the same work touches no new page, on any thread that comes later."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

# Maps of three sizes, as layers have them: beyond what malloc maps at once, and below.
ROUNDS = """
    import resource, sys, threading
    import torch
    from model.host_memory import keep_freed_memory

    torch.set_num_threads(1)

    def faults():
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        for mebibytes in (48, 24, 6):
            torch.ones(mebibytes * 2**18).add_(1)
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    if sys.argv[1] == "kept":
        assert keep_freed_memory()
    found = []
    thread = threading.Thread(target=lambda: found.extend(faults() for _ in range(8)))
    thread.start()
    thread.join()
    print(found[0], found[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's allocator")
@pytest.mark.parametrize(("way", "kept"), [("kept", True), ("by default", False)])
def test_a_thread_that_comes_later_touches_its_memory_once(way: str, kept: bool) -> None:
    command = [sys.executable, "-c", textwrap.dedent(ROUNDS), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    first, last = map(int, done.stdout.split())
    assert first > 1000
    assert (last < first / 10) is kept
