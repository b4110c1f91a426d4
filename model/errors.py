"""Exceptions of the `model` package."""

from __future__ import annotations

__all__ = ["CheckpointError", "ModelError", "PredictionError"]


class ModelError(Exception):
    """Base class of the errors that `model` raises on purpose."""


class CheckpointError(ModelError):
    """Error for a file that is not a checkpoint of this project, or that contradicts itself."""


class PredictionError(ModelError):
    """Error for an image whose scores are not finite."""
