"""Tests of networks in the layouts of other packages: labels pixel by pixel against the packages' own pipelines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from model.files.checkpoint import from_bytes
from model.networks.program.front_end import drawn_image
from model.prediction.dense_prediction import predict
from model.prediction.views import views
from pipeline.errors import ConfigError
from pipeline.importing.importer import Imported, import_network
from pipeline.importing.request import ImportRequest
from tests.shared import STORAGE

pytestmark = pytest.mark.slow
NAMES = "road,sky,tree,car,person"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def settled(network: nn.Module) -> nn.Module:
    """Return a network with random weights whose batch normalization has seen drawn images, so that signals survive."""
    network.train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        network(torch.cat([standardized(drawn_image(seed, 96, 128)) for seed in range(4)]))
    return network.eval()


def standardized(image: NDArray[np.uint8]) -> torch.Tensor:
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    return (pixels - mean) / std


def imported(source: str, **options: object) -> Imported:
    return import_network(ImportRequest.model_validate({"source": source, **options}), STORAGE)


def labels_of(made: Imported, image: NDArray[np.uint8], window: int = 1236) -> NDArray[np.uint8]:
    network = from_bytes(made.data)
    looks = views((1.0,), flip=False, resize=network.spec.resize)
    return predict(network, image, views=looks, max_window=window).labels


def test_segformer_labels_as_transformers_does(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        num_labels=5,
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 32, 64],
        decoder_hidden_size=32,
        id2label=dict(enumerate(NAMES.split(","))),
    )
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path)
    processor = transformers.SegformerImageProcessor(size={"height": 96, "width": 128})
    processor.save_pretrained(tmp_path)
    made = imported(str(tmp_path))
    assert made.description.classes == tuple(NAMES.split(","))
    assert made.description.resize == {"size": (96, 128)} and made.description.context.halo is None
    for size in ((96, 128), (150, 211), (61, 40)):
        image = drawn_image(7, *size)
        inputs = processor(images=Image.fromarray(image), return_tensors="pt")
        with torch.inference_mode():
            outputs = network(**inputs)
        theirs = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0].numpy()
        # Their resizing of other sizes rounds pixels in another way.
        assert (labels_of(made, image) != theirs).mean() < (1e-4 if size == (96, 128) else 0.01)


def test_a_unet_is_tiled_exactly_and_labels_as_its_package(tmp_path: Path) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    torch.manual_seed(0)
    network = settled(
        smp.Unet("resnet18", encoder_weights=None, classes=5, encoder_depth=3, decoder_channels=(32, 16, 8))
    )
    network.save_pretrained(str(tmp_path))
    made = imported(str(tmp_path), classes=NAMES, mean=MEAN, std=STD)
    halo = made.description.context.halo
    assert halo is not None and made.description.input.multiple_of == 8
    image = drawn_image(7, 240, 328)
    with torch.inference_mode():
        theirs = network(standardized(image))[0].argmax(dim=0).numpy()
    assert (labels_of(made, image) != theirs).mean() < 1e-4
    # Odd sizes, which the package refuses, are padded; windows give the same labels.
    image = drawn_image(8, 331, 205)
    smallest = from_bytes(made.data).front_end.footprint.min_window
    np.testing.assert_array_equal(labels_of(made, image, smallest), labels_of(made, image))


def test_lraspp_labels_as_torchvision_does(tmp_path: Path) -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    network = settled(lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5))
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    made = imported("torchvision:lraspp_mobilenet_v3_large", weights=str(tmp_path / "w.safetensors"), classes=NAMES)
    assert made.description.context.halo is None
    for size in ((128, 160), (101, 77)):
        image = drawn_image(7, *size)
        with torch.inference_mode():
            theirs = network(standardized(image))["out"][0].argmax(dim=0).numpy()
        assert (labels_of(made, image) != theirs).mean() < 1e-4


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"classifier.4.weight": torch.zeros(5, 1)}, tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="do not fit fcn_resnet50"):
        imported("torchvision:fcn_resnet50", weights=weights, classes=NAMES)
    with pytest.raises(ConfigError, match="no segmentation network 'resnet50'"):
        imported("torchvision:resnet50", weights=weights)
    with pytest.raises(ConfigError, match=r"there is no config\.json in"):
        imported(str(tmp_path))
