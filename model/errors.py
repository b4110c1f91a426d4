"""What can go wrong in this package."""

from __future__ import annotations

__all__ = ["CheckpointError", "ModelError", "PredictionError"]


class ModelError(Exception):
    """Base of the errors that `model` raises on purpose."""


class CheckpointError(ModelError):
    """A file is not a checkpoint of this project, or contradicts itself."""


class PredictionError(ModelError):
    """The network's scores for an image are not finite."""
