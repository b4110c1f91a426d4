"""The file contract, and files that somebody else made."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from model.checkpoint import METADATA_KEY, from_bytes, read_metadata, to_bytes
from model.errors import CheckpointError
from model.network import DilatedNetwork, dilation8, front_end_only
from tests.model.test_dense_prediction import SPEC, WIDTHS


def made(**options: object) -> DilatedNetwork:
    torch.manual_seed(0)
    spec = replace(SPEC, provenance={"recipe": "none", "licence": "MIT"}, reference_window=(900, 1100))
    return dilation8(spec, WIDTHS, **options).eval()  # type: ignore[arg-type]


def changed(**changes: object) -> bytes:
    data = to_bytes(made())
    metadata = {**read_metadata(data, METADATA_KEY), **changes}
    return save(load(data), {METADATA_KEY: json.dumps(metadata)})


@pytest.mark.parametrize("options", [{}, {"large": True, "padding": "input"}])
def test_round_trip(options: dict[str, object]) -> None:
    network = made(**options)
    again = from_bytes(to_bytes(network))
    assert again.spec == network.spec
    assert not again.training
    images = torch.randn(1, 3, 388, 380)
    with torch.inference_mode():
        torch.testing.assert_close(again(images), network(images), rtol=0, atol=0)
    assert to_bytes(again) == to_bytes(network)


def test_the_bare_front_end_has_a_null_context() -> None:
    data = to_bytes(front_end_only(SPEC, WIDTHS))
    assert read_metadata(data, METADATA_KEY)["context"] is None
    assert from_bytes(data).context is None


def test_metadata_keys_and_tensor_names_are_the_contract() -> None:
    data = to_bytes(made())
    metadata = read_metadata(data, METADATA_KEY)
    assert metadata["format"] == 1
    assert metadata["context"] == {"dilations": [1, 1, 2, 4, 8, 16, 1], "padding": "layer"}
    assert metadata["upsampling"] == "grid"
    assert metadata["reference_window"] == [900, 1100]
    assert {"classes", "palette", "mean_bgr", "ignore_label", "licence"} <= metadata.keys()
    names = set(load(data))
    assert {"conv1_1.weight", "conv5_3.bias", "fc6.weight", "fc7.bias", "final.weight"} <= names
    assert {"ctx_conv1_1.weight", "ctx_conv1_2.bias", "ctx_conv5_1.weight", "ctx_fc1.weight", "ctx_final.bias"} <= names


def test_names_of_the_voc_release_are_accepted() -> None:
    data = to_bytes(made())
    renamed = {
        name.replace("final.", "fc-final.") if name.startswith("final.") else name.replace("ctx_", "ct_"): tensor
        for name, tensor in load(data).items()
    }
    assert to_bytes(from_bytes(save(renamed, {METADATA_KEY: json.dumps(read_metadata(data, METADATA_KEY))}))) == data


@pytest.mark.parametrize(
    "changes,reason",
    [
        ({"format": 2}, "format 2"),
        ({"classes": ["a", "b"]}, "colour for each"),
        ({"classes": ["a"] * 4, "palette": [[0, 0, 0]] * 4}, "`final` has 3 outputs"),
        ({"palette": [[0, 0, 300]] * 3}, "300"),
        ({"mean_bgr": [1, 2]}, "mean_bgr"),
        ({"mean_bgr": None}, "cannot be used"),
        ({"upsampling": "nearest"}, "nearest"),
        ({"ignore_label": -1}, "-1"),
        ({"context": {"dilations": [1, 1], "padding": "layer"}}, "not a module"),
        ({"context": {"dilations": [1] * 6, "padding": "layer"}}, "missing or unknown"),
        ({"context": None}, "missing or unknown"),
    ],
)
def test_metadata_that_cannot_be(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        from_bytes(changed(**changes))


def test_tensors_that_cannot_be() -> None:
    data = to_bytes(made())
    metadata, tensors = {METADATA_KEY: json.dumps(read_metadata(data, METADATA_KEY))}, load(data)
    for name, replacement in (
        ("fc7.weight", torch.zeros(5, 4, 1, 1)),
        ("fc7.weight", torch.zeros(5)),
        ("ctx_conv2_1.weight", torch.zeros(4, 3, 3, 3)),
        ("conv1_1.bias", torch.zeros(3)),
    ):
        with pytest.raises(CheckpointError):
            from_bytes(save({**tensors, name: replacement}, metadata))
    without = {name: tensor for name, tensor in tensors.items() if name != "conv3_2.weight"}
    with pytest.raises(CheckpointError, match="conv3_2"):
        from_bytes(save(without, metadata))


def test_a_header_larger_than_the_file_is_not_believed() -> None:
    with pytest.raises(CheckpointError, match="claims"):
        from_bytes(struct.pack("<Q", 2**40) + b"{}")


def test_other_files() -> None:
    for data in (b"", b"\x80\x04.", b"PK\x03\x04 a zipped pickle", save({"x": torch.zeros(1)})):
        with pytest.raises(CheckpointError):
            from_bytes(data)


@settings(max_examples=60)
@given(st.data())
def test_damage_never_escapes_as_another_error(data: st.DataObject) -> None:
    whole = bytearray(to_bytes(made()))
    header = struct.unpack("<Q", whole[:8])[0] + 8
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    try:
        from_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except CheckpointError:
        return


def test_loading_does_not_import_torchs_compiler(tmp_path: Path) -> None:
    """A second and more of every driver's and actor's start."""
    path = tmp_path / "network.safetensors"
    path.write_bytes(to_bytes(made()))
    code = """
import sys
from pathlib import Path
from model.checkpoint import from_bytes
from_bytes(Path(sys.argv[1]).read_bytes())
print("torch._dynamo" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
