"""What all jobs share: options from a typed configuration, logging, and errors as exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from textwrap import shorten
from types import FrameType
from typing import Any, NoReturn, TypeVar

import ray
import tyro
from pydantic import BaseModel, ValidationError

from pipeline.errors import ConfigError, IncompleteRun, NoProgress, PipelineError, last_line

__all__ = ["connect", "job", "parse"]

Config = TypeVar("Config", bound=BaseModel)


class _Stopped(BaseException):
    """A signal asked this process to end."""


def parse(config: type[Config], arguments: list[str], description: str | None, default: Config | None = None) -> Config:
    """Reads a configuration from the command line; unknown options end the process with exit code 2.

    Raises:
        ConfigError: for a value out of its range.
    """
    try:
        parsed = tyro.cli(config, args=arguments, description=description, default=default)
    except ValidationError as error:
        raise ConfigError("; ".join(map(_describe, error.errors()))) from error
    if parsed is None:
        raise ConfigError("the command line gives no configuration: see --help")
    return parsed


def _describe(problem: Mapping[str, Any]) -> str:
    """Return one line about a value that a configuration refuses."""
    option = ".".join(map(str, problem["loc"])).replace("_", "-")
    message = str(problem["msg"]).removeprefix("Value error, ")
    # Of what several options contradict, the whole configuration would be shown.
    return f"--{option}: {message}, got {shorten(repr(problem['input']), 80)}" if option else message


def connect(*, log_to_driver: bool = True) -> None:
    """Joins the cluster that `ray job submit` or RAY_ADDRESS names, or starts Ray on this machine.

    Args:
        log_to_driver: whether what workers print appears here.

    Raises:
        IncompleteRun: if the cluster does not answer, or Ray does not start.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address is not None:
        # Ray's core reports every actor pool of Ray Data as an error here. A cluster started below would inherit this.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray.init(logging_level="warning", configure_logging=False, log_to_driver=log_to_driver)
    except Exception as error:
        # Whatever it is (there are bare exceptions among them), it is no fault of the job's.
        problem = "Ray did not start on this machine" if address is None else f"no Ray cluster answers at {address}"
        reason = last_line(error).rstrip(".")
        raise IncompleteRun(f"{problem}: {reason}. Nothing was begun: submit the same command again") from error
    # ray.init sets a handler of its own, that exits with code 15 and says nothing.
    signal.signal(signal.SIGTERM, _stop)


def job(main: Callable[[list[str]], int]) -> int:
    """Runs a job's `main`; a known error becomes one sentence and its exit code, a signal 128 plus its number."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for library in ("aiobotocore", "botocore"):
        logging.getLogger(library).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = main(sys.argv[1:])
        # Left to the interpreter's end, Ray takes two seconds for it.
        ray.shutdown()
        return code
    except NoProgress as error:
        print(f"error: {error}", file=sys.stderr)
        _leave(error.exit_code)
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (_Stopped, KeyboardInterrupt) as stopped:
        number = signal.SIGTERM if isinstance(stopped, _Stopped) else signal.SIGINT
        print("stopped: finished work is kept; submit the same command to go on", file=sys.stderr)
        _leave(128 + number)


def _leave(code: int) -> NoReturn:
    """Ends this process at once: threads of Ray may be in a call that never returns."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped
