"""Images that kill or hang the process that decodes them, by bugs of the kind that C code can have."""

from __future__ import annotations

import hashlib
import io
import os
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["HANG", "KILL", "KILL_TWICE", "DecoderLog", "bitmap", "digest"]

KILL = b"this pixel kills"
KILL_TWICE = b"this pixel kills two processes"
HANG = b"this pixel hangs"
_FOLDER = "DEADLY_IMAGES_FOLDER"
# Workers import this module first. The decoder records what it decodes and whom it kills: one file per process with the
# digest of the newest image or label, and one file per death.
_BUGS = f"""
    import ctypes, hashlib, os, pathlib, PIL.Image
    _folder = pathlib.Path(os.environ[{_FOLDER!r}])
    _open = PIL.Image.open
    def buggy(file, *arguments, **options):
        data = file.getvalue() if hasattr(file, "getvalue") else b""
        digest = hashlib.sha256(data).hexdigest()
        (_folder / f"process-{{os.getpid()}}").write_text(digest)
        deaths = len([*_folder.glob(f"death-{{digest}}-*")])
        if {KILL!r} in data and ({KILL_TWICE!r} not in data or deaths < 2):
            (_folder / f"death-{{digest}}-{{os.getpid()}}").touch()
            ctypes.string_at(0)  # a segmentation fault
        if {HANG!r} in data:
            ctypes.PyDLL(None).sleep(10**6)  # and keeps the interpreter's lock
        return _open(file, *arguments, **options)
    PIL.Image.open = buggy
"""


class DecoderLog:
    """Decoder with bugs for the workers of one run, and the record of what it does.

    Args:
        folder: New folder for the record; the deaths that `KILL_TWICE` counts are those in this folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "sitecustomize.py").write_text(textwrap.dedent(_BUGS))
        self._folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which workers use the decoder."""
        path = os.pathsep.join(filter(None, (str(self._folder), os.environ.get("PYTHONPATH"))))
        return {"PYTHONPATH": path, _FOLDER: str(self._folder)}

    @property
    def deaths(self) -> int:
        """Number of processes that images have killed."""
        return len([*self._folder.glob("death-*")])

    def newest(self, pid: int) -> str | None:
        """Return the digest of the file that a process decoded last; None if it has decoded nothing."""
        path = self._folder / f"process-{pid}"
        # The file is empty for the moment in which its process replaces the digest.
        return (path.read_text() or None) if path.exists() else None


def digest(data: bytes) -> str:
    """Return the digest by which a `DecoderLog` names a file."""
    return hashlib.sha256(data).hexdigest()


def bitmap(marker: bytes, seed: int = 0) -> bytes:
    """Return a BMP file of 32×24 random pixels that contains `marker`, one of the constants above."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    pixels.reshape(-1)[: len(marker)] = np.frombuffer(marker, np.uint8)
    sink = io.BytesIO()
    # A bitmap stores blue first; reverse the channels, so that the marker occurs in the file unchanged.
    Image.fromarray(pixels[:, :, ::-1].copy()).save(sink, "BMP")
    return sink.getvalue()
