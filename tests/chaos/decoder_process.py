"""Process that decodes files within limits, so that a test can observe a crash, a hang or excessive memory."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import os
import resource
import select
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.data.images import decode_image
from pipeline.data.labels import decode_label
from pipeline.errors import DecodeError
from tests.chaos.image_files import seeds

ROOT = Path(__file__).resolve().parents[2]
CLASSES = 255  # number of classes, so that every label value is valid
CPU_SECONDS = 20
ANSWER_SECONDS = 120
ADDRESS_SPACE = 2 * 2**30
_REQUEST = struct.Struct("<??QI")


@dataclass(frozen=True)
class Outcome:
    """Result of decoding one file.

    Attributes:
        kind: `ok`; `refused` if a DecodeError was raised; `escaped` for another exception; `died` if the process ended.
        text: Message, or the way in which the process ended.
        shape: Shape of the pixels.
        pixels: Digest of the pixels.
        seconds: CPU time in seconds.
        grown: Peak growth of the process's memory in bytes; 0 unless the file had a process to itself.
    """

    kind: str
    text: str = ""
    shape: tuple[int, ...] = ()
    pixels: str = ""
    seconds: float = 0.0
    grown: int = 0


class Decoder:
    """Client of a child process that decodes files; a child that ends is replaced."""

    def __init__(self, noise: IO[bytes]) -> None:
        self._noise = noise
        self._start()

    def image(self, data: bytes, max_pixels: int, *, alone: bool = False) -> Outcome:
        """Decode an image; with `alone`, in a forked process whose memory is measured."""
        return self._ask(data, max_pixels, False, alone)

    def label(self, data: bytes, max_pixels: int) -> Outcome:
        return self._ask(data, max_pixels, True, False)

    def resident(self) -> int:
        """Return the resident memory of the child in bytes."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def noise(self) -> bytes:
        """Return everything that the child has written to standard error."""
        self._noise.seek(0)
        return self._noise.read()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.chaos.decoder_process"]
        pipe = subprocess.PIPE
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=self._noise)

    def _ask(self, data: bytes, max_pixels: int, label: bool, alone: bool) -> Outcome:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(_REQUEST.pack(label, alone, max_pixels, len(data)) + data)
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], ANSWER_SECONDS)
        line = process.stdout.readline() if ready else b""
        if line:
            answer = json.loads(line)
            return Outcome(**{**answer, "shape": tuple(answer["shape"])})
        text = f"exit code {process.wait(30)}" if ready else f"no answer within {ANSWER_SECONDS} seconds"
        self.stop()
        self._start()
        return Outcome("died", text)


@contextlib.contextmanager
def decoder() -> Iterator[Decoder]:
    """Start a child that decodes, and end it with its owner."""
    with tempfile.TemporaryFile() as noise:
        running = Decoder(noise)
        try:
            yield running
        finally:
            running.stop()


def _serve() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Load plugins, codecs and tables first, so that their one-time cost is not attributed to a file.
    for data in seeds().values():
        _decode(data, 10_000, label=False)
    while head := sys.stdin.buffer.read(_REQUEST.size):
        label, alone, max_pixels, length = _REQUEST.unpack(head)
        data = sys.stdin.buffer.read(length)
        answer = _forked(data, max_pixels, label) if alone else _decode(data, max_pixels, label)
        print(json.dumps(answer), flush=True)


def _decode(data: bytes, max_pixels: int, label: bool) -> dict[str, Any]:
    started = _processor_seconds()
    # Let the kernel limit the CPU time, since no library can ignore that limit.
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(started) + CPU_SECONDS, resource.RLIM_INFINITY))
    answer: dict[str, Any] = {"shape": ()}
    try:
        made = (
            decode_label(data, CLASSES, max_pixels=max_pixels) if label else decode_image(data, max_pixels=max_pixels)
        )
        good = made.dtype == np.uint8 and made.ndim == 3 - label and (label or made.shape[2] == 3)
        answer |= {"kind": "ok" if good else "escaped", "text": f"{made.dtype} {made.shape}", "shape": made.shape}
        answer["pixels"] = hashlib.sha256(np.ascontiguousarray(made).data).hexdigest()
    except DecodeError as error:
        answer |= {"kind": "refused", "text": str(error)}
    except BaseException as error:
        answer |= {"kind": "escaped", "text": f"{type(error).__name__}: {error}"[:500]}
    return {**answer, "seconds": _processor_seconds() - started}


def _forked(data: bytes, max_pixels: int, label: bool) -> dict[str, Any]:
    # Return free memory to the system, or it would hide the growth.
    ctypes.CDLL(None).malloc_trim(0)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Decode a valid file first, so that costs of any file are not part of the measurement.
        _decode(seeds()["png 2 8"], max_pixels, False)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = _decode(data, max_pixels, label)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writer, json.dumps({**answer, "grown": grown * 1024}).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return json.loads(text) if text else {"kind": "died", "text": f"exit code {code}", "shape": ()}


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    _serve()
