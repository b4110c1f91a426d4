"""Tests that both conventions of VGG-16 weights give the outputs that they were trained to give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torchvision.models import vgg16

from model.errors import ModelError
from model.networks.dilated.front_end import DilatedFrontEnd
from model.networks.front_end import FrontEndWidths
from model.networks.vgg16 import load_torchvision_vgg16, load_vgg16_bytes

MEAN = (103.9, 116.8, 123.7)
WEIGHTS = Path(os.environ.get("DILATED_TEST_DATA", "../shared/data")) / "weights" / "vgg16_conv_fp16.safetensors"


def test_torchvisions_first_block_is_the_same_function_of_the_image() -> None:
    torch.manual_seed(0)
    theirs = vgg16().double().eval()
    ours = DilatedFrontEnd(2, FrontEndWidths.vgg16(fc=8)).double()
    load_torchvision_vgg16(ours, theirs.state_dict(), MEAN)
    rgb = torch.randint(0, 256, (1, 3, 24, 20)).double()
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    standardised = (rgb / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / std
    bgr = rgb.flip(1) - torch.tensor(MEAN).view(3, 1, 1)
    with torch.inference_mode():
        # torchvision pads by one, so both see the same pixels only away from the border.
        expected = theirs.features[:4](standardised)[:, :, 2:-2, 2:-2]
        torch.testing.assert_close(
            torch.relu(ours.conv1_2(torch.relu(ours.conv1_1(bgr)))), expected, rtol=1e-5, atol=1e-6
        )


def test_classifier_becomes_fc7() -> None:
    torch.manual_seed(0)
    front_end = DilatedFrontEnd(2, FrontEndWidths(FrontEndWidths().conv, fc6=8, fc7=4096))
    front_end.fc7 = torch.nn.Conv2d(4096, 4096, 1)
    state = vgg16().state_dict()
    assert load_torchvision_vgg16(front_end, state, MEAN)["classifier"] == ["fc7"]
    vector = torch.randn(4096)
    expected = state["classifier.3.weight"] @ vector + state["classifier.3.bias"]
    torch.testing.assert_close(front_end.fc7(vector.view(1, -1, 1, 1)).flatten(), expected, rtol=1e-3, atol=1e-3)


def test_a_file_in_bgr_convention_is_copied_as_it_is() -> None:
    source = vgg16().state_dict()
    file = save({name: tensor.half() for name, tensor in source.items() if name.startswith("features")})
    front_end = DilatedFrontEnd(2, FrontEndWidths.vgg16(fc=8))
    provenance = load_vgg16_bytes(front_end, file, "s3://b/vgg.safetensors")
    torch.testing.assert_close(front_end.conv5_3.weight, source["features.28.weight"].half().float(), rtol=0, atol=0)
    assert provenance["source"] == "s3://b/vgg.safetensors"
    assert len(provenance["sha256"]) == 64


def test_narrow_networks_and_other_files_are_refused() -> None:
    with pytest.raises(ModelError, match="full width"):
        load_vgg16_bytes(
            DilatedFrontEnd(2, FrontEndWidths.vgg16(0.5)), save({"features.0.weight": torch.zeros(64, 3, 3, 3)}), "f"
        )
    with pytest.raises(ModelError, match="not a safetensors"):
        load_vgg16_bytes(DilatedFrontEnd(2, FrontEndWidths.vgg16(1 / 64)), b"no", "f")


@pytest.mark.skipif(not WEIGHTS.exists(), reason="needs real VGG-16 weights: set DILATED_TEST_DATA")
def test_real_weights_see_edges() -> None:
    front_end = DilatedFrontEnd(2, FrontEndWidths.vgg16(fc=8))
    load_vgg16_bytes(front_end, WEIGHTS.read_bytes(), str(WEIGHTS))
    flat = torch.zeros(1, 3, 40, 40)
    edge = torch.zeros(1, 3, 40, 40)
    edge[:, :, :, 20:] = 120.0
    with torch.inference_mode():
        responses = [torch.relu(front_end.conv1_1(images)).std(dim=3).mean() for images in (flat, edge)]
    assert responses[1] > 10 * responses[0] + 1
