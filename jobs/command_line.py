"""Command-line support for all jobs: typed options, one path for errors, exit codes, logging and signals."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn, TypeVar

import tyro
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ConfigError, ExitCode, NoProgress, PipelineError

__all__ = ["Options", "WriterOptions", "job", "parse", "wrap"]

Config = TypeVar("Config", bound=BaseModel)
# Widest line of prose in --help, in characters.
_WIDEST = 100


class Options(BaseModel):
    """Base of the options of a job: immutable; unknown names are refused; field docstrings become --help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class WriterOptions(Options):
    """Base of the options of a job that writes files."""

    dry_run: bool = False
    """Check the arguments, print the files that the job would write, and write nothing."""


class _Stopped(BaseException):
    """Signal that asks this process to end; a BaseException, so that handlers of Exception do not catch it."""


def job(main: Callable[[list[str]], ExitCode | None]) -> Callable[..., ExitCode]:
    """Turn the body of a job into its entry point, which maps every known error to one sentence and an exit code.

    The entry point takes the command-line arguments. Without arguments it takes those of the process, and sets up
    logging and signals: a signal ends the process with exit code 128 plus the signal's number.

    Args:
        main: Body of the job, a function of the command-line arguments; it returns None if all is done.
    """

    @functools.wraps(main)
    def run(arguments: Sequence[str] | None = None) -> ExitCode:
        if arguments is None:
            return _run_process(run)
        try:
            return main([*arguments]) or ExitCode.DONE
        except SystemExit as ended:
            # The parser has printed help or its own message.
            return ExitCode.WRONG_USAGE if ended.code else ExitCode.DONE
        except PipelineError as error:
            print(f"error: {error}", file=sys.stderr)
            if isinstance(error, NoProgress):
                _leave(error.exit_code)
            return error.exit_code

    return run


def _run_process(run: Callable[[Sequence[str]], ExitCode]) -> ExitCode:
    """Run the job of this process with its command line, and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for library in ("aiobotocore", "botocore"):
        logging.getLogger(library).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = run(sys.argv[1:])
    except (_Stopped, KeyboardInterrupt) as stopped:
        number = signal.SIGTERM if isinstance(stopped, _Stopped) else signal.SIGINT
        print("stopped: finished work is kept; submit the same command to go on", file=sys.stderr)
        _leave(128 + number)
    if code is ExitCode.DONE and (ray := sys.modules.get("ray")):
        # At the interpreter's exit, the shutdown would take two seconds.
        ray.shutdown()
    return code


def parse(
    config: type[Config],
    arguments: Sequence[str],
    description: str | None,
    default: Config | None = None,
    program: str | None = None,
) -> Config:
    """Read a configuration from the command line; wrong options end the process with exit code 2.

    Args:
        config: Class of the configuration.
        arguments: Command-line arguments, without the program's name.
        description: Text at the top of --help; its indented paragraphs are commands and keep their lines.
        default: Configuration with the default values; None: the defaults of the class.
        program: Program in the line of usage; None: that of the process.

    Raises:
        ConfigError: If a value is out of its range, or values contradict each other.
    """
    if {"-h", "--help"} & {*arguments}:
        # Tyro would join the lines of commands, and leave lines of prose longer than the terminal is wide.
        print(wrap(description or ""))

    _join_lines(config)

    # A function, because tyro renders the validation errors of a class itself, in a format of its own.
    def configure(config: Any) -> Any:
        return config

    configure.__annotations__ = {"config": Annotated[config, tyro.conf.arg(name="")], "return": config}
    if default is not None:
        configure.__defaults__ = (default,)
    # Options without `--no-…` twins are easier to read; the two configurations have always had them.
    flags = (tyro.conf.FlagCreatePairsOff,) if issubclass(config, Options) else ()
    markers = (tyro.conf.PositionalMetavarFromFieldName, *flags)
    try:
        parsed: Config = tyro.cli(configure, prog=program, args=arguments, description="", config=markers)
    except ValidationError as error:
        raise ConfigError("; ".join(map(_describe, error.errors()))) from error
    return parsed


def wrap(text: str) -> str:
    """Return a docstring for the terminal: prose wrapped to the terminal's width, indented paragraphs as they are."""
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    paragraphs = text.strip().split("\n\n")
    wrapped = (each if each.startswith(" ") else textwrap.fill(each, width) for each in paragraphs)
    return "\n\n".join(wrapped) + "\n"


def _join_lines(config: type[BaseModel]) -> None:
    """Join the lines of the descriptions of a configuration, because tyro would keep the breaks of the source."""
    for field in config.model_fields.values():
        field.description = " ".join((field.description or "").split()) or None
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            _join_lines(field.annotation)


def _describe(problem: Mapping[str, Any]) -> str:
    """Return one line about a value that fails the validation of a configuration."""
    option = ".".join(map(str, problem["loc"])).replace("_", "-")
    message = str(problem["msg"]).removeprefix("Value error, ")
    value = textwrap.shorten(repr(problem["input"]), 80)
    if not option:
        # Several options contradict each other, and `input` would be the whole configuration.
        return message
    if limit := message.removeprefix("Input should be ") if message.startswith("Input should be ") else "":
        limit = limit.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
        return f"--{option} is {value}, must be {limit}"
    return f"--{option}: {message}, got {value}"


def _leave(code: int) -> NoReturn:
    """End this process at once, because threads of Ray may be in a call that never returns."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising `_Stopped` in the main thread."""
    raise _Stopped
