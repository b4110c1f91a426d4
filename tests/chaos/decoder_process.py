"""A process of its own that decodes within limits, so that what kills, hangs or fills it is seen as that."""

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
CLASSES = 255  # of labels: every value is one
CPU_SECONDS, ANSWER_SECONDS, ADDRESS_SPACE = 20, 120, 2 * 2**30
_REQUEST = struct.Struct("<??QI")


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        kind: `ok`; `refused` by a DecodeError; `escaped`: another exception; `died`: the process did.
        text: message, or how it died.
        shape: of the pixels.
        pixels: their digest.
        seconds: of the processor.
        grown: bytes of memory that the process had beyond what it began with, at most; 0 unless it was alone.
    """

    kind: str
    text: str = ""
    shape: tuple[int, ...] = ()
    pixels: str = ""
    seconds: float = 0.0
    grown: int = 0


class Decoder:
    """Decodes in a child, so that what kills, hangs or fills a process is seen as that; another child follows."""

    def __init__(self, noise: IO[bytes]) -> None:
        self._noise = noise
        self._start()

    def image(self, data: bytes, max_pixels: int, *, alone: bool = False) -> Outcome:
        """`alone`: in a fork that is measured."""
        return self._ask(data, max_pixels, False, alone)

    def label(self, data: bytes, max_pixels: int) -> Outcome:
        return self._ask(data, max_pixels, True, False)

    def resident(self) -> int:
        """Bytes of memory of the child."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def noise(self) -> bytes:
        """What the child has written beside its answers."""
        self._noise.seek(0)
        return self._noise.read()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _start(self) -> None:
        command, pipe = [sys.executable, "-m", "tests.chaos.decoder_process"], subprocess.PIPE
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
    """A child that ends with its owner."""
    with tempfile.TemporaryFile() as noise:
        running = Decoder(noise)
        try:
            yield running
        finally:
            running.stop()


def _serve() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Plugins, codecs and tables that a process loads once are no cost of a file.
    for data in seeds().values():
        _decode(data, 10_000, label=False)
    while head := sys.stdin.buffer.read(_REQUEST.size):
        label, alone, max_pixels, length = _REQUEST.unpack(head)
        data = sys.stdin.buffer.read(length)
        answer = _forked(data, max_pixels, label) if alone else _decode(data, max_pixels, label)
        print(json.dumps(answer), flush=True)


def _decode(data: bytes, max_pixels: int, label: bool) -> dict[str, Any]:
    started = _processor_seconds()
    # The kernel's limit: no code of a library can be deaf to it.
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
    # What is free already must not pay for it.
    ctypes.CDLL(None).malloc_trim(0)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # What any file costs is no part of the measure.
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
