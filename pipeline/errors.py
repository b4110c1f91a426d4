"""The errors of the pipeline, and the exit code that a job gives for each."""

from __future__ import annotations

import textwrap

__all__ = [
    "AccessDenied",
    "ConfigError",
    "DecodeError",
    "IncompleteRun",
    "MachineLeaving",
    "NoProgress",
    "ObjectChanged",
    "ObjectMissing",
    "PipelineError",
    "ProcessDied",
    "RunConflict",
    "StorageError",
    "StorageUnavailable",
    "UnknownClasses",
    "known_cause",
    "last_line",
]


_LONGEST = 240


class PipelineError(Exception):
    """Base of the errors that the pipeline raises on purpose."""

    exit_code = 3


class ConfigError(PipelineError):
    """Wrong usage or configuration, found before any work."""

    exit_code = 2


class RunConflict(PipelineError):
    """The output belongs to a run with another model, other settings or another manifest."""

    exit_code = 4


class IncompleteRun(PipelineError):
    """The run did not end, or too many images failed: nothing is committed, all work done is kept for the next try."""


class MachineLeaving(IncompleteRun):
    """A worker's machine is about to be taken away, or another one has come; a checkpoint has been written."""


class NoProgress(IncompleteRun):
    """Nothing was finished for so long that something must be stuck; what, only the cluster can say."""


class StorageError(PipelineError):
    """Storage does not do its work: infrastructure, never the fault of one image."""


class StorageUnavailable(StorageError):
    """Storage did not answer, or not rightly, as often as it was asked: another time it may."""


class AccessDenied(StorageError):
    """Credentials are missing, wrong, expired or not sufficient."""


class ObjectMissing(StorageError):
    """There is no object under this name."""


class ObjectChanged(StorageError):
    """The object is not the version that was asked for."""


class DecodeError(PipelineError):
    """The bytes are not an image or a label that can be used; the message is the reason."""


class ProcessDied(PipelineError):
    """Processes that worked on an image died, so often that it is left out."""


class UnknownClasses(DecodeError):
    """A label file is sound, but its values are no classes of the network or label space."""


def known_cause(error: BaseException) -> PipelineError | None:
    """The error of ours out of which Ray made `error`, through however many wrappings; None if there is none."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in [*failures.values(), error]:
        seen: BaseException | None = failure
        while seen is not None:
            if isinstance(seen, PipelineError):
                return seen
            seen = getattr(seen, "cause", None) or seen.__cause__
    return None


def last_line(error: BaseException) -> str:
    """What an error of somebody else's says in the end, for a message of ours."""
    lines = str(error).strip().splitlines()
    return textwrap.shorten(lines[-1], _LONGEST, placeholder=" …") if lines else type(error).__name__
