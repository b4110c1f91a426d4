"""Precision of the arithmetic: one rule for training, prediction and reference geometry.

On a GPU, the front end up to fc7 multiplies in bfloat16 and adds in float32. Its last layer, the context module, the
losses and the upsampling use float32 without TF32, because the rounding of scores decides labels. On a CPU, everything
uses the type of the weights, which is float32 outside tests.
"""

from __future__ import annotations

import contextlib

import torch

__all__ = ["front_end_dtype", "front_end_precision", "precision_name", "score_precision"]


def front_end_dtype(device: str) -> torch.dtype:
    """Return the type in which the front end multiplies on a kind of device, such as `cpu` or `cuda`."""
    return torch.bfloat16 if device == "cuda" else torch.float32


def precision_name(device: str) -> str:
    """Return the name of `front_end_dtype`, such as `bfloat16`, for settings and digests."""
    return str(front_end_dtype(device)).removeprefix("torch.")


def front_end_precision(device: torch.device) -> torch.autocast:
    """Return the context in which a network runs: bfloat16 on a GPU, and the type of the weights on a CPU.

    On a GPU, this also turns TF32 off in the process: cuDNN would otherwise use it for float32 convolutions by default.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return torch.autocast(device.type, front_end_dtype("cuda"), enabled=device.type == "cuda")


def score_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which scores are computed: the type of the weights, also inside `front_end_precision`."""
    # The meta device, which computes shapes only, has no autocast.
    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
