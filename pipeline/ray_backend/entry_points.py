"""Segmentation and training on Ray from a configuration alone: connection, checks and execution."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import ray

from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, ExitCode, IncompleteRun, error_summary
from pipeline.ray_backend.shard_pool import check_resources, run_shards
from pipeline.ray_backend.training_group import check_workers, run_dry, run_phase
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.runs import run as segmentation
from pipeline.training.config import TrainConfig
from pipeline.training.runs import run as training

__all__ = ["await_silence", "connect", "segment_bucket", "train"]

# Ray's core aborts a process that cannot reach the head for this many seconds; the environment variable changes it.
_RAY_LIMIT = ("RAY_gcs_rpc_server_reconnect_timeout_s", "60")
# Fraction of Ray's limit after which the process ends itself: the head has most of the time to come back.
_PATIENCE = 0.75


def connect(*, log_to_driver: bool = True) -> None:
    """Connect to the cluster of `ray job submit` or RAY_ADDRESS, or start Ray on this machine.

    A process that is connected already stays as it is.

    Args:
        log_to_driver: Whether the output of workers appears in this process.

    Raises:
        IncompleteRun: If the cluster does not answer, or Ray does not start.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    # Ray's core reports every actor pool of Ray Data as an error in this process. A cluster that starts below inherits
    # the level; whoever has to look into such a cluster sets the variable.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        # Without an address, Ray would try for minutes to reach the last cluster of this machine, even if that died.
        ray.init(address or "local", logging_level="warning", configure_logging=False, log_to_driver=log_to_driver)
    except Exception as error:
        # Ray raises many types here, bare exceptions among them; none is an error of the job.
        problem = "Ray did not start on this machine" if address is None else f"no Ray cluster answers at {address}"
        reason = error_summary(error).rstrip(".")
        raise IncompleteRun(f"{problem}: {reason}. Nothing was begun: submit the same command again") from error
    if threading.current_thread() is threading.main_thread():
        # ray.init installs its own handler, which exits with code 15 and without a message.
        signal.signal(signal.SIGTERM, handler)
    head = ray.get_runtime_context().gcs_address
    threading.Thread(target=_end_with_head, args=(head,), name="head-watch", daemon=True).start()


def _end_with_head(address: str) -> None:
    """End this process with one sentence and exit code 3 before Ray aborts it because the head is lost.

    Args:
        address: Address (host:port) of the head; the function returns when this process disconnects from it.
    """
    name, default = _RAY_LIMIT
    seconds = _PATIENCE * float(os.environ.get(name, default))

    def connected() -> bool:
        return ray.is_initialized() and ray.get_runtime_context().gcs_address == address

    if not await_silence(address, seconds, connected):
        return
    print(
        f"error: the Ray cluster at {address} no longer answers ({seconds:g} seconds without its head): submit the "
        "same command to a running cluster; finished work is kept",
        file=sys.stderr,
        flush=True,
    )
    # No other thread may be waited for: they are in calls of Ray that never return.
    os._exit(ExitCode.INCOMPLETE)


def await_silence(address: str, seconds: float, relevant: Callable[[], bool]) -> bool:
    """Wait until a server accepts no TCP connection for `seconds`; return False as soon as that is not `relevant`.

    Args:
        address: Address (host:port) of the server.
        seconds: Longest time in seconds since the last connection that succeeded.
        relevant: Function that returns whether the answer still matters.
    """
    host, port = address.rsplit(":", 1)
    interval = seconds / 20
    heard = time.monotonic()
    while relevant():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=interval).close()
            heard = time.monotonic()
        except OSError:
            if time.monotonic() - heard > seconds:
                return True
        time.sleep(interval)
    return False


def segment_bucket(config: SegmentConfig) -> dict[str, Any]:
    """Segment the images that have no result yet with actors on Ray, and commit the run.

    The same call resumes a run that was interrupted. `pipeline.Run` reads what it leaves.

    Args:
        config: Configuration of the run.

    Returns:
        Content of `_SUCCESS.json`: among others `images`, `errors` and `mean_iou` (0–1, or None without labels).

    Raises:
        ConfigError: If the run cannot work, or `plan` is set: `pipeline.forecast` estimates a run.
        RunConflict: If the output belongs to another run.
        IncompleteRun: If no cluster answers, the run does not end, or too many images failed.
        StorageError: If storage fails.
    """
    if config.plan:
        raise ConfigError("plan is set: call pipeline.forecast, which estimates a run and starts nothing")
    connect()
    return segmentation.segment_bucket(config, check_resources, run_shards)


def train(config: TrainConfig) -> bool:
    """Train a network with workers on Ray, and write it to `<output>/network.safetensors`.

    The same call resumes a run that was interrupted. With `config.dry_run`, the data are checked and a step is measured
    in one task; the findings are printed, and nothing is trained.

    Args:
        config: Configuration of the run.

    Returns:
        False if the run had ended before, or was a dry run.

    Raises:
        ConfigError: If the run cannot work; the message names the value and the remedy.
        RunConflict: If the output belongs to another run, or another driver works on it.
        IncompleteRun: If no cluster answers, or workers are lost too often.
        StorageError: If storage fails too often.
    """
    connect(log_to_driver=False)
    if config.dry_run:
        config, _ = training.check_data(config, Storage())
        check_workers(config)
        run_dry(config)
        return False
    return training.train(config, check_workers, run_phase)
