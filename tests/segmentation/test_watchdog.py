"""Tests that the watchdog ends processes that hang, in Python and in C, and no others."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

LIMIT = 60  # seconds of a test's process, far beyond the watchdog's limit


def run(body: str) -> subprocess.CompletedProcess[str]:
    """Run steps in a process of its own, under a watchdog of half a second."""
    head = """
        import ctypes, sys, threading, time
        from pipeline.segmentation.supervision import Watchdog
        watchdog = Watchdog(0.5)
    """
    code = textwrap.dedent(head) + textwrap.dedent(body)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)


@pytest.mark.parametrize(
    "hang",
    [
        "while True: pass",
        "time.sleep(1000)",
        "ctypes.CDLL(None).sleep(1000)",
        # This call keeps the interpreter's lock, so no other thread can run.
        "ctypes.PyDLL(None).sleep(1000)",
    ],
)
def test_a_hang_ends_the_process_and_shows_where(hang: str) -> None:
    done = run(f"""
        def decode_something():
            {hang}
        with watchdog.step("decoding s3://b/i.png"):
            decode_something()
    """)
    assert done.returncode != 0
    assert "decode_something" in done.stderr, "the stack says where"
    assert "PyDLL" in hang or "decoding s3://b/i.png took longer than 0.5 seconds" in done.stderr


def test_steps_that_go_on_or_end_are_left_alone() -> None:
    done = run("""
        with watchdog.step("long") as renew:
            for _ in range(12):
                time.sleep(0.1)
                renew()
        for _ in range(12):
            with watchdog.step("short"):
                time.sleep(0.1)
        time.sleep(1)
        print("alive")
    """)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_a_hang_on_another_thread_counts() -> None:
    done = run("""
        def work():
            with watchdog.step("decoding"):
                time.sleep(1000)
        threading.Thread(target=work).start()
        while True:
            with watchdog.step("predicting"):
                time.sleep(0.05)
    """)
    assert done.returncode == 70
