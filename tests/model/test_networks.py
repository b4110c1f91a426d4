"""Tests of front end, context module and builders, against the paper's figures and a naive implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from demo.street.scene import VOID, draw_scene
from model.networks.context import (
    CONTEXT_DILATIONS,
    LARGE_MULTIPLIERS,
    ContextModule,
    initialise_identity,
    initialise_random,
)
from model.networks.dilated.front_end import HEAD_CELLS, DilatedFrontEnd
from model.networks.dilated.geometry import front_end_cells
from model.networks.dilated.networks import dilation7, dilation8, dilation10, front_end_only
from model.networks.front_end import FrontEndWidths
from model.networks.network import NetworkSpec
from model.prediction.upsampling import DECONVOLUTION
from tests.model import naive

NARROW = FrontEndWidths((3, 3, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5), 6, 7)


def as_arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.double().numpy() for name, tensor in module.state_dict().items()}


def spec(classes: int = 4) -> NetworkSpec:
    return NetworkSpec(tuple(f"c{i}" for i in range(classes)), ((0, 0, 0),) * classes, (1.0, 2.0, 3.0))


@pytest.mark.parametrize(
    "size", [(900, 900, 66, 66), (900, 1100, 66, 91), (852, 1640, 60, 159), (1396, 1396, 128, 128)]
)
def test_released_deploy_sizes(size: tuple[int, int, int, int]) -> None:
    height, width, rows, columns = size
    with torch.device("meta"):
        scores = DilatedFrontEnd(2, NARROW)(torch.empty(1, 3, height, width))
    assert scores.shape == (1, 2, rows, columns)
    assert (front_end_cells(height), front_end_cells(width)) == (rows, columns)


@pytest.mark.parametrize("pixels", range(373, 420))
def test_cells_of_every_small_size(pixels: int) -> None:
    with torch.device("meta"):
        assert DilatedFrontEnd(1, NARROW)(torch.empty(1, 3, pixels, 380)).shape[2:] == (front_end_cells(pixels), 1)


def test_too_small_an_input_is_refused_by_value() -> None:
    with pytest.raises(ValueError, match="372"):
        front_end_cells(372)


def test_front_end_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        network = DilatedFrontEnd(21)
    without_classifier = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("final"))
    assert without_classifier == 134_260_544


def test_front_end_equals_the_naive_one() -> None:
    torch.manual_seed(1)
    network = DilatedFrontEnd(3, NARROW).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image = torch.randn(3, 389, 381, dtype=torch.float64)
    expected = naive.front_end(image.numpy(), as_arrays(network))
    with torch.inference_mode():
        np.testing.assert_allclose(network(image[None])[0].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_head_eats_24_cells() -> None:
    network = DilatedFrontEnd(2, NARROW)
    maps = network.features(torch.zeros(1, 3, 396, 380))
    assert tuple(side - HEAD_CELLS for side in maps.shape[2:]) == network.head(maps).shape[2:] == (3, 1)


def test_receptive_field_of_the_front_end_is_380_pixels() -> None:
    network = DilatedFrontEnd(1, FrontEndWidths((1,) * 13, 1, 1)).double()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 1.0)
    image = (torch.rand(1, 3, 420, 420, dtype=torch.float64) + 1).requires_grad_()
    network(image)[0, 0, 2, 2].backward()
    # Max pooling passes each gradient to one pixel only, so take the outermost rows over several random images.
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert rows.min() >= 16
    assert rows.max() <= 16 + 379
    assert rows.max() - rows.min() > 360


@pytest.mark.parametrize("layers,expected", [(7, 35), (8, 67), (10, 259)])
def test_receptive_field_of_the_context_module(layers: int, expected: int) -> None:
    module = ContextModule(1, CONTEXT_DILATIONS[layers]).double()
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    side = expected + 8
    scores = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    module(scores)[0, 0, side // 2, side // 2].backward()
    touched = scores.grad[0, 0].nonzero()
    assert (touched.max(dim=0).values - touched.min(dim=0).values + 1).tolist() == [expected, expected]
    assert 1 + 2 * sum(CONTEXT_DILATIONS[layers]) == expected


def test_receptive_fields_of_table_1() -> None:
    dilations = CONTEXT_DILATIONS[8]
    assert [1 + 2 * sum(dilations[:count]) for count in range(1, 8)] == [3, 5, 9, 17, 33, 65, 67]


def test_context_weights_of_table_1() -> None:
    def weights(module: ContextModule) -> tuple[int, int]:
        kinds = ("weight", "bias")
        first, second = (sum(p.numel() for n, p in module.named_parameters() if n.endswith(kind)) for kind in kinds)
        return first, second

    assert weights(ContextModule(21)) == (28_224, 168)
    assert weights(ContextModule(21, padding="input", multipliers=LARGE_MULTIPLIERS)) == (6_801_102, 2_037)


@pytest.mark.parametrize("padding", ["layer", "input"])
@pytest.mark.parametrize("layers", [7, 8, 10])
def test_context_module_equals_the_naive_one(layers: int, padding: str) -> None:
    torch.manual_seed(2)
    module = ContextModule(2, CONTEXT_DILATIONS[layers], padding).double()
    scores = torch.randn(2, 9, 11, dtype=torch.float64)
    expected = naive.context(
        scores.numpy(), as_arrays(module), list(module.names), list(CONTEXT_DILATIONS[layers]), padding
    )
    with torch.inference_mode():
        np.testing.assert_allclose(module(scores[None])[0].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_two_paddings_differ_beyond_the_border() -> None:
    torch.manual_seed(3)
    by_layer = ContextModule(2, padding="layer")
    at_input = ContextModule(2, padding="input")
    for parameter in by_layer.parameters():
        torch.nn.init.normal_(parameter, mean=0.05, std=0.2)
    at_input.load_state_dict(by_layer.state_dict())
    scores = torch.rand(1, 2, 20, 20)
    assert not torch.allclose(by_layer(scores), at_input(scores), rtol=1e-3)


@pytest.mark.parametrize("padding", ["layer", "input"])
@pytest.mark.parametrize("multipliers", [None, LARGE_MULTIPLIERS])
def test_identity_initialisation_is_the_identity(padding: str, multipliers: tuple[int, ...] | None) -> None:
    module = ContextModule(5, padding=padding, multipliers=multipliers).double()
    initialise_identity(module, sigma=0.0)
    scores = torch.randn(1, 5, 12, 9, dtype=torch.float64)
    torch.testing.assert_close(module(scores), scores.clamp(min=0), rtol=1e-12, atol=1e-12)


def test_each_large_layer_carries_its_share() -> None:
    module = ContextModule(3, multipliers=LARGE_MULTIPLIERS).double()
    initialise_identity(module, sigma=0.0)
    maps = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    original = maps
    for layer, dilation, multiple in zip(module.layers, module.dilations, LARGE_MULTIPLIERS, strict=True):
        maps = layer(torch.nn.functional.pad(maps, [dilation] * 4))
        expected = original.repeat_interleave(multiple, dim=1) / multiple
        torch.testing.assert_close(maps, expected)


def test_noise_breaks_ties_between_maps_of_one_predecessor() -> None:
    module = ContextModule(3, multipliers=LARGE_MULTIPLIERS)
    initialise_identity(module, sigma=0.01, generator=torch.Generator().manual_seed(0))
    first = module.ctx_conv1_1.weight.detach()
    assert not torch.equal(first[0], first[1])
    assert float(first[0, 0, 1, 1]) == pytest.approx(0.5)
    assert 0.008 < first[:, :, 0, 0].std() < 0.012


@pytest.mark.parametrize("classes", [11, 19, 21])
def test_a_fresh_large_module_stays_close_to_the_identity(classes: int) -> None:
    # Labels of a drawn scene; with more classes than it has, a checkerboard of regions tells the classes apart.
    labels = torch.from_numpy(draw_scene(3)[1].astype(np.int64))[4::8, 4::8]
    rows, columns = torch.meshgrid(*map(torch.arange, labels.shape), indexing="ij")
    labels = (torch.where(labels == VOID, 0, labels) + 11 * ((rows // 15 + columns // 15) % 2)) % classes
    one_hot = torch.nn.functional.one_hot(labels, classes).permute(2, 0, 1)[None].float()
    # Score maps as a good front end makes them: a part of a cell's scores belongs to the classes around it.
    generator = torch.Generator().manual_seed(0)
    scores = 3 * one_hot + 5 * torch.nn.functional.avg_pool2d(one_hot, 3, 1, 1)
    scores += 0.3 * torch.randn(scores.shape, generator=generator)
    kept, lost, distance = [], [], []
    for seed in range(3):
        module = ContextModule(classes, multipliers=LARGE_MULTIPLIERS)
        initialise_identity(module, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            ours = module(scores)
        identity = scores.clamp(min=0)
        before, after, target = scores.argmax(1), ours.argmax(1), labels[None]
        kept.append((before == after).float().mean())
        lost.append(naive_mean_iou(before, target) - naive_mean_iou(after, target))
        distance.append(((ours - identity).square().mean() / identity.square().mean()).sqrt())
    assert np.mean(kept) >= 0.985 and np.mean(lost) <= 0.02 and np.mean(distance) <= 0.25


def naive_mean_iou(predicted: torch.Tensor, target: torch.Tensor) -> float:
    ious = []
    for index in target.unique():
        both = (predicted == index) & (target == index)
        either = (predicted == index) | (target == index)
        ious.append(float(both.sum()) / float(either.sum()))
    return float(np.mean(ious))


def test_the_first_scores_do_not_depend_on_the_width() -> None:
    for fc7 in (64, 4096):
        final = DilatedFrontEnd(5, FrontEndWidths(conv=(4,) * 13, fc6=8, fc7=fc7)).final.weight
        # The reference code: 0.001 at 4,096 channels; the deviation of a sum of fc7 products is the same elsewhere.
        assert float(final.detach().std()) * fc7**0.5 == pytest.approx(0.001 * 64, rel=0.2)


def test_random_initialisation_is_not_the_identity() -> None:
    module = ContextModule(5)
    initialise_random(module)
    scores = torch.rand(1, 5, 12, 9)
    assert (module(scores) - scores).abs().mean() > 0.1


def test_builders() -> None:
    assert front_end_only(spec(), NARROW).context is None
    for build, layers in ((dilation7, 7), (dilation8, 8), (dilation10, 10)):
        network = build(spec(), NARROW)
        assert network.context is not None
        assert network.context.dilations == CONTEXT_DILATIONS[layers]
    assert dilation10(spec(), NARROW).spec.upsampling == DECONVOLUTION
    large = dilation8(spec(), NARROW, large=True, padding="input").context
    assert large is not None
    assert [layer.out_channels for layer in large.layers] == [4 * multiple for multiple in LARGE_MULTIPLIERS]


def test_wide_fc6_gives_the_same_gradients_in_slices() -> None:
    torch.manual_seed(4)
    network = DilatedFrontEnd(2, FrontEndWidths(NARROW.conv, 2050, 3), dropout=0.0)
    maps = torch.randn(1, 5, 26, 25)
    sliced = torch.autograd.grad(network._fc6(maps).square().sum(), [network.fc6.weight, network.fc6.bias])
    whole = torch.autograd.grad(network.fc6(maps).square().sum(), [network.fc6.weight, network.fc6.bias])
    for one, other in zip(sliced, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
