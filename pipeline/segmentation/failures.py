"""Errors that are no fault of an image: memory that ran out, and a CUDA context that can no longer be used."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from pipeline.segmentation.supervision import end_process

__all__ = ["context_is_broken", "end_if_context_is_broken", "out_of_memory"]

# Allocators without an exception type of their own; only the text tells their errors apart.
_MEMORY_TEXTS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)
# oneDNN's whole message when a convolution of this size cannot be set up on the CPU; smaller ones may succeed.
_ONEDNN_TEXT = "could not create a primitive"
# Once a kernel has failed, every later call of the process fails on this device.
_CONTEXT_TEXTS = (
    "CUBLAS_STATUS",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "illegal memory access",
    "device-side assert",
    "CUDA error",
)


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on the host or on the device; less work at a time may then succeed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    # Not a part of the text: a "primitive descriptor" that cannot be created is an unsupported operation.
    return str(error).strip() == _ONEDNN_TEXT or any(text in str(error) for text in _MEMORY_TEXTS)


def context_is_broken(error: BaseException) -> bool:
    """Return whether an error leaves the CUDA context of this process unusable."""
    if out_of_memory(error):
        return False
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CONTEXT_TEXTS)


def end_if_context_is_broken(error: BaseException, exit_now: Callable[[int], object] = os._exit) -> None:
    """End the process after an error that leaves its CUDA context unusable, so that its shards are done elsewhere.

    Args:
        error: Error that ended the work on a shard.
        exit_now: Function of the exit code that ends the process without cleanup, which could hang on the device.
    """
    if context_is_broken(error):
        end_process(f"the CUDA context cannot be used any more ({error})", exit_now)
