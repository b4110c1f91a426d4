"""Tests of the checkpoint file format, and of files from other sources."""

from __future__ import annotations

import hashlib
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

from model.errors import CheckpointError
from model.files.checkpoint import METADATA_KEY, from_bytes, read_metadata, to_bytes
from model.files.metadata import metadata_of, parse_spec
from model.networks.dilated.networks import dilation8, front_end_only
from model.networks.families import build_network
from model.networks.network import Network
from model.prediction.upsampling import DECONVOLUTION, GRID, Upsampling
from model.prediction.views import WorkingSize
from pipeline.data.label_spaces import network_label_space
from tests.model.test_dense_prediction import SPEC, WIDTHS
from tests.training.support import small_recipe


def made(**options: object) -> Network:
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


def with_labels(**changes: object) -> Network:
    """Return a network of three classes whose label files have their own values, at a working size."""
    network = made()
    settings: dict[str, object] = {
        "label_values": ((0,), (4,), (7, 300)),
        "label_ignore": (9, 255),
        "label_colors": (((1, 2, 3),), ((4, 5, 6), (7, 8, 9)), ((0, 0, 0),)),
        "label_ignore_colors": ((9, 9, 9),),
        "resize": WorkingSize(long_side=640),
    }
    network.spec = replace(network.spec, **{**settings, **changes})  # type: ignore[arg-type]
    return network


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({}, "label_values", [[0], [4], [7, 300]]),
        ({"label_values": None}, "label_ignore", [9, 255]),
        ({"resize": WorkingSize(size=(480, 640))}, "resize", {"size": [480, 640]}),
        (dict.fromkeys(("label_values", "label_ignore", "label_colors", "label_ignore_colors")), "family", "dilated"),
    ],
)
def test_format_2_says_how_labels_are_written(changes: dict[str, object], key: str, value: object) -> None:
    network = with_labels(**changes)
    data = to_bytes(network)
    metadata = read_metadata(data, METADATA_KEY)
    assert (metadata["format"], metadata["family"], metadata["family_options"]) == (2, "dilated", {})
    assert metadata["refinement"] is None and metadata[key] == value
    assert from_bytes(data).spec == network.spec and to_bytes(from_bytes(data)) == data
    # Segmentation makes a label space of it, so that must be possible.
    space = network_label_space(metadata)
    assert space.encoding is not None and len(space.encoding.values) == 3


def test_format_1_is_written_byte_for_byte_as_before() -> None:
    """The digest was taken from version 0.1.0 with the same lines of code."""
    recipe = small_recipe()
    network = build_network(replace(recipe.spec(), provenance={"recipe": "r"}), recipe.network.widths())
    for number, parameter in enumerate(network.parameters()):
        torch.nn.init.constant_(parameter, number / 8)
    digest = hashlib.sha256(to_bytes(network)).hexdigest()
    assert digest == "0fb250c39112697d721f25b2188d6d67d08ba1a195094bc7499df272b5126971"


GRID_IN_FULL = {"stride": 8, "anchor": 0.0, "interpolates": "probabilities", "border": "clamp"}
DECONVOLUTION_IN_FULL = {"stride": 8, "anchor": 3.5, "interpolates": "scores", "border": "zeros"}


@pytest.mark.parametrize(
    ("name", "in_full", "upsampling"),
    [("grid", GRID_IN_FULL, GRID), ("deconvolution", DECONVOLUTION_IN_FULL, DECONVOLUTION)],
)
def test_upsampling_may_be_spelled_out(name: str, in_full: dict[str, object], upsampling: Upsampling) -> None:
    for written in (name, in_full):
        network = from_bytes(changed(format=2, family="dilated", upsampling=written))
        assert network.spec.upsampling == upsampling
        assert read_metadata(to_bytes(network), METADATA_KEY)["upsampling"] == name
        assert read_metadata(to_bytes(network), METADATA_KEY)["format"] == 1
    with pytest.raises(CheckpointError, match="upsampling has stride 16, but a dilated network"):
        from_bytes(changed(format=2, family="dilated", upsampling={**in_full, "stride": 16}))


def test_any_other_upsampling_is_written_in_full() -> None:
    in_full = {"stride": 8, "anchor": -1, "interpolates": "scores", "border": "clamp"}
    network = from_bytes(changed(format=2, family="dilated", upsampling=in_full))
    assert network.spec.upsampling == Upsampling(8, -1.0, "scores", "clamp")
    metadata = read_metadata(to_bytes(network), METADATA_KEY)
    assert metadata["format"] == 2 and metadata["upsampling"] == in_full
    with pytest.raises(CheckpointError, match="is not known in format 1"):
        from_bytes(changed(upsampling=in_full))
    same = from_bytes(changed(format=2, family="dilated", upsampling={**in_full, "anchor": -1.0}))
    assert to_bytes(same) == to_bytes(from_bytes(to_bytes(network))) == to_bytes(network)
    # Other families have other strides.
    other = replace(network.spec, upsampling=Upsampling(32, 12.5, "scores", "zeros"))
    assert parse_spec(metadata_of(other)) == other


@pytest.mark.parametrize(
    "changes,reason",
    [
        ({"family": "fcn8s"}, "family fcn8s is unknown, this version reads dilated"),
        ({"family_options": {"variant": "x"}}, "family_options"),
        ({"refinement": {"kind": "crf_rnn"}}, "refinement"),
        ({"upsampling": {**GRID_IN_FULL, "stride": 65}}, "stride 65: give a whole number of pixels, 1 to 64"),
        ({"upsampling": {**GRID_IN_FULL, "kernel": 16}}, "upsampling .* is not known"),
        ({"upsampling": {"stride": 8}}, "upsampling .* is not known"),
        ({"upsampling": None}, "upsampling None is not known in format 2: give grid or deconvolution"),
        ({"label_values": [[0], [1]]}, "not those of 3 classes"),
        ({"label_values": [[0], [1], [65536]]}, "within 0–65535"),
        ({"label_values": [[0], [1], [1]]}, "stands there twice"),
        ({"label_values": [[0], [1], [2]], "label_ignore": [2]}, "stands there twice"),
        ({"label_values": 3}, "cannot be used"),
        ({"label_values": [[0], [1], []]}, "a class has none"),
        ({"label_values": [[0], [1], [255]]}, "stands there twice"),
        ({"label_colors": [[[0, 0, 256]], [], []]}, "256"),
        ({"resize": {"long_side": 0}}, "sides of 1"),
        ({"resize": {"size": [1, 10_001]}}, "10001"),
        ({"resize": {"long_side": 5, "size": [1, 1]}}, "neither"),
        ({"resize": [5]}, "neither"),
        ({"resize": {"long_side": "5"}}, "whole numbers"),
    ],
)
def test_format_2_that_cannot_be(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        from_bytes(changed(**{"format": 2, "family": "dilated", **changes}))


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
    metadata = {METADATA_KEY: json.dumps(read_metadata(data, METADATA_KEY))}
    tensors = load(data)
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
    """The import would add more than a second to the start of every driver and actor."""
    path = tmp_path / "network.safetensors"
    path.write_bytes(to_bytes(made()))
    code = """
import sys
from pathlib import Path
from model.files.checkpoint import from_bytes
from_bytes(Path(sys.argv[1]).read_bytes())
print("torch._dynamo" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
