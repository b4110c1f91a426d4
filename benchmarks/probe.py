"""Helpers of all benchmarks: alternating rounds in one process, the machine's ceiling, and results as JSON."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["Timing", "alternate", "machine", "product_rate", "run_job", "write_results"]

# The documents quote the results in benchmarks/results; set BENCHMARK_RESULTS to leave those unchanged.
_FOLDER = Path(os.environ.get("BENCHMARK_RESULTS", Path(__file__).parent / "results"))
_PACKAGES = ("torch", "ray", "numpy", "numba", "onnxruntime", "openvino")
Timing = dict[str, float]
# The process reads its own peak: what its parent sees begins with the peak of the parent.
_RUNNER = """
import runpy, sys
from benchmarks.scale.meter import peak_mib
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(peak_mib())
"""


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every way once per round, after one warm-up round that is not counted.

    Args:
        ways: Function to time, by name.
        rounds: Number of rounds that count.

    Returns:
        The median, least and greatest number of seconds of each way.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return {
        name: {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
        for name, values in seconds.items()
    }


def product_rate(side: int = 2048) -> float:
    """Return floating-point operations per second of a square float32 matrix product, the ceiling of this machine."""
    matrix = torch.randn(side, side)
    timing = alternate({"product": lambda: matrix @ matrix}, 5)["product"]
    return 2 * side**3 / timing["least"]


def machine() -> dict[str, Any]:
    """Return processor, cores, threads and versions of this machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES if importlib.util.find_spec(name)},
    }


def run_job(name: str, *arguments: str) -> dict[str, Any]:
    """Run `jobs/<name>.py` in a process of its own; return its seconds, CPU seconds and peak resident memory in MiB.

    Raises:
        RuntimeError: If the job fails.
    """
    command = [sys.executable, "-c", _RUNNER, f"jobs/{name}.py", *arguments]
    root = Path(__file__).resolve().parents[1]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"jobs/{name}.py ended with {done.returncode}: {done.stdout}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "peak_mib": int(done.stdout.split()[-1]),
    }


def write_results(name: str, content: Mapping[str, Any]) -> None:
    """Write <name>.json with the machine's description into benchmarks/results or the folder BENCHMARK_RESULTS."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    path = _FOLDER / f"{name}.json"
    path.write_text(json.dumps({**content, "machine": machine()}, indent=1, ensure_ascii=False) + "\n")
    print(f"written to {path.parent.name}/{path.name}")


def _processor() -> str:
    """Return the processor's model name and the vector extensions that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    extras = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if flag in flags]
    return " ".join([*(named[:1] or [platform.machine()]), *extras])
