"""Command-line support for jobs: options from a typed configuration, logging, and errors as exit codes."""

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

from pipeline.errors import ConfigError, IncompleteRun, NoProgress, PipelineError, error_summary

__all__ = ["connect", "job", "parse"]

Config = TypeVar("Config", bound=BaseModel)


class _Stopped(BaseException):
    """Signal that asks this process to end; a BaseException, so that handlers of Exception do not catch it."""


def parse(config: type[Config], arguments: list[str], description: str | None, default: Config | None = None) -> Config:
    """Read a configuration from the command line; unknown options end the process with exit code 2.

    Args:
        config: Class of the configuration.
        arguments: Command-line arguments, without the program's name.
        description: Text at the top of --help.
        default: Configuration with the default values; None: the defaults of the class.

    Raises:
        ConfigError: If a value is out of its range.
    """
    try:
        parsed = tyro.cli(config, args=arguments, description=description, default=default)
    except ValidationError as error:
        raise ConfigError("; ".join(map(_describe, error.errors()))) from error
    if parsed is None:
        raise ConfigError("the command line gives no configuration: see --help")
    return parsed


def _describe(problem: Mapping[str, Any]) -> str:
    """Return one line about a value that fails the validation of a configuration."""
    option = ".".join(map(str, problem["loc"])).replace("_", "-")
    message = str(problem["msg"]).removeprefix("Value error, ")
    # Without an option, several options contradict each other, and `input` would be the whole configuration.
    return f"--{option}: {message}, got {shorten(repr(problem['input']), 80)}" if option else message


def connect(*, log_to_driver: bool = True) -> None:
    """Connect to the cluster of `ray job submit` or RAY_ADDRESS, or start Ray on this machine.

    Args:
        log_to_driver: Whether the output of workers appears in this process.

    Raises:
        IncompleteRun: If the cluster does not answer, or Ray does not start.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address is not None:
        # Ray's core reports every actor pool of Ray Data as an error in this process. The level is set only for an
        # existing cluster, because a cluster started below would inherit it.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray.init(logging_level="warning", configure_logging=False, log_to_driver=log_to_driver)
    except Exception as error:
        # Ray raises many types here, bare exceptions among them; none is an error of the job.
        problem = "Ray did not start on this machine" if address is None else f"no Ray cluster answers at {address}"
        reason = error_summary(error).rstrip(".")
        raise IncompleteRun(f"{problem}: {reason}. Nothing was begun: submit the same command again") from error
    # ray.init installs its own handler, which exits with code 15 and without a message.
    signal.signal(signal.SIGTERM, _stop)


def job(main: Callable[[list[str]], int]) -> int:
    """Run a job's `main` and return its exit code; a known error becomes one sentence and its own exit code.

    A signal ends the process with exit code 128 plus the signal's number. A run without progress ends the process at
    once, with its exit code.

    Args:
        main: Entry point of the job, from command-line arguments to exit code.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for library in ("aiobotocore", "botocore"):
        logging.getLogger(library).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = main(sys.argv[1:])
        # At the interpreter's exit, the shutdown would take two seconds.
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
    """End this process at once, because threads of Ray may be in a call that never returns."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising `_Stopped` in the main thread."""
    raise _Stopped
