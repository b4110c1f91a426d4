"""The errors of the pipeline, and the exit code that a job gives for each."""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "ConfigError",
    "DecodeError",
    "IncompleteRun",
    "ObjectChanged",
    "ObjectMissing",
    "PipelineError",
    "RunConflict",
    "StorageError",
    "UnknownClasses",
]


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
    """The run did not end, or too many images failed: nothing is committed, all work done is kept."""


class StorageError(PipelineError):
    """Storage does not do its work: infrastructure, never the fault of one image."""


class AccessDenied(StorageError):
    """Credentials are missing, wrong, expired or not sufficient."""


class ObjectMissing(StorageError):
    """There is no object under this name."""


class ObjectChanged(StorageError):
    """The object is not the version that was asked for."""


class DecodeError(PipelineError):
    """The bytes are not an image or a label that can be used; the message is the reason."""


class UnknownClasses(DecodeError):
    """A label file is sound, but its values are no classes of the network or label space."""
