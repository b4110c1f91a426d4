"""Tests of the rule of precision: scores keep the precision of the weights inside a context of lower precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.networks.context import LARGE_MULTIPLIERS, ContextModule, initialise_identity
from model.networks.dilated.front_end import HEAD_CELLS, DilatedFrontEnd
from model.networks.front_end import FrontEndWidths
from model.precision import front_end_precision

ROOT = Path(__file__).resolve().parents[2]
NARROW = FrontEndWidths((3, 3, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5), 6, 7)


@pytest.mark.parametrize("multipliers", [None, LARGE_MULTIPLIERS])
def test_the_context_module_keeps_its_precision(multipliers: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    module = ContextModule(3, multipliers=multipliers)
    initialise_identity(module)
    scores = torch.randn(2, 3, 12, 9)
    with torch.inference_mode():
        expected = module(scores)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(module(scores), expected)


def test_the_last_layer_of_the_front_end_keeps_its_precision() -> None:
    torch.manual_seed(0)
    front_end = DilatedFrontEnd(4, NARROW).eval()
    features = torch.rand(1, 5, HEAD_CELLS + 3, HEAD_CELLS + 2)
    inputs = []
    front_end.final.register_forward_pre_hook(lambda layer, given: inputs.append(given[0]))
    with torch.inference_mode():
        with torch.autocast("cpu", torch.bfloat16):
            scores = front_end.head(features)
        assert scores.dtype == inputs[0].dtype == torch.float32
        expected = torch.nn.functional.conv2d(inputs[0], front_end.final.weight, front_end.final.bias)
    assert torch.equal(scores, expected)


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
def test_a_gpu_computes_in_bfloat16_and_never_in_tf32() -> None:
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.matmul.allow_tf32 = True
    assert front_end_precision(torch.device("cuda")).fast_dtype == torch.bfloat16
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_a_cpu_computes_in_the_type_of_the_weights() -> None:
    with front_end_precision(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_precision_is_decided_in_one_module() -> None:
    deciding = {"model/precision.py"}
    for folder in ("model", "pipeline", "jobs"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if "torch.autocast(" in text or "allow_tf32" in text:
                deciding.add(path.relative_to(ROOT).as_posix())
    assert deciding == {"model/precision.py"}
