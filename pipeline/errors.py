"""Errors of the pipeline, and the exit code of a job for each."""

from __future__ import annotations

import textwrap
from enum import IntEnum

__all__ = [
    "AccessDenied",
    "ConfigError",
    "DecodeError",
    "ExitCode",
    "IncompleteRun",
    "NoProgress",
    "ObjectChanged",
    "ObjectMissing",
    "PipelineError",
    "ProcessDied",
    "RunConflict",
    "StorageError",
    "StorageOutOfMemory",
    "StorageUnavailable",
    "UnknownClasses",
    "WorkerPreempted",
    "error_summary",
    "known_cause",
]


# Characters of a foreign error's text in a message.
_LONGEST = 240


class ExitCode(IntEnum):
    """Exit codes of the jobs; a public contract."""

    DONE = 0
    """The job did what was asked."""
    PROBLEMS_FOUND = 1
    """A verified run is not sound."""
    WRONG_USAGE = 2
    """Options or configuration are wrong; no work was started."""
    INCOMPLETE = 3
    """The run is not complete, no cluster answered, or storage failed; finished work is kept."""
    FOREIGN_OUTPUT = 4
    """The output belongs to another run."""


class PipelineError(Exception):
    """Base of the errors that the pipeline raises deliberately.

    Attributes:
        exit_code: Exit code of a job that ends with this error.
    """

    exit_code = ExitCode.INCOMPLETE


class ConfigError(PipelineError):
    """Wrong usage or configuration, found before any work starts."""

    exit_code = ExitCode.WRONG_USAGE


class RunConflict(PipelineError):
    """Output that belongs to a run with another model, other settings or another manifest."""

    exit_code = ExitCode.FOREIGN_OUTPUT


class IncompleteRun(PipelineError):
    """Run that did not finish, or in which too many images failed.

    Nothing is committed; all finished work is kept for the next attempt.
    """


class WorkerPreempted(IncompleteRun):
    """Interruption because a worker's machine is about to be removed, or another one was added.

    A checkpoint has been written.
    """


class NoProgress(IncompleteRun):
    """Run in which nothing finished for so long that it must be stuck.

    Only the state of the cluster shows the cause.
    """


class StorageError(PipelineError):
    """Failure of the storage infrastructure; never the fault of one image."""


class StorageUnavailable(StorageError):
    """Storage that gave no valid answer in any attempt; a later run may succeed."""


class StorageOutOfMemory(StorageError, MemoryError):
    """Object that does not fit into the memory of this process; other objects may."""


class AccessDenied(StorageError):
    """Credentials that are missing, wrong, expired or insufficient."""


class ObjectMissing(StorageError):
    """Missing object: storage has nothing under this name."""


class ObjectChanged(StorageError):
    """Object whose version is not the requested one."""


class DecodeError(PipelineError):
    """Bytes that are not a usable image or label; the message is the reason."""


class ProcessDied(PipelineError):
    """Image that is left out because processes that worked on it died too often."""


class UnknownClasses(DecodeError):
    """Undamaged label file whose values are not classes of the network or label space."""


def known_cause(error: BaseException) -> PipelineError | None:
    """Return the pipeline error from which Ray made `error`, or None if there is none.

    The search follows any number of wrappers. It includes the failures of single workers, if `error` lists them.
    """
    failures = getattr(error, "worker_failures", None) or {}
    for failure in [*failures.values(), error]:
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, PipelineError):
                return seen
            # Ray keeps the original exception in `cause`, Python keeps it in `__cause__`.
            seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def error_summary(error: BaseException) -> str:
    """Return the last line of a foreign error's text, shortened for a message.

    The result has at most 240 characters. It is the name of the error's type if there is no text.
    """
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[-1], _LONGEST, placeholder=" …") if lines else type(error).__name__
