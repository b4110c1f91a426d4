"""Tests of importing an exported program: what is measured, and that windows give the labels of whole images."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from jobs.import_network import main
from model.errors import CheckpointError
from model.files.checkpoint import from_bytes
from model.networks.program.archive import add_extras, judge
from model.networks.program.front_end import check_golden, drawn_image
from model.prediction import dense_prediction, labels_by_window
from model.prediction.dense_prediction import blend_weight, predict, score_map
from model.prediction.geometry import Footprint, Window, plan_windows
from pipeline.data.labels import decode_mask
from pipeline.data.storage import join
from pipeline.errors import ConfigError, ExitCode, RunConflict
from pipeline.importing.export import export, saved
from pipeline.importing.importer import import_network
from pipeline.results.verify import verify
from pipeline.segmentation import segmenter
from tests.importing.support import (
    CLASSES,
    MEAN,
    STD,
    TwoOutputs,
    archive_of,
    exported,
    imported,
    request,
    small_network,
)
from tests.segmentation.support import config_of, differing_tables, picture, png, run_here, write_inputs
from tests.shared import STORAGE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("networks"))


def direct_labels(image: NDArray[np.uint8], *, whole: bool = False) -> NDArray[np.uint8]:
    """Return the labels as a user would compute them: the plain network, then cells repeated along lines."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    with torch.inference_mode():
        scores = small_network(whole=whole)((pixels - mean) / std)
    height, width = image.shape[:2]
    # Cell i lies on pixel 4·i; the last cells are repeated.
    axes = []
    for pixels_along, cells in ((width, scores.shape[3]), (height, scores.shape[2])):
        axes.append(2 * np.minimum(np.arange(pixels_along) / 4, cells - 1) / max(1, cells - 1) - 1)
    grid = torch.from_numpy(np.stack(np.meshgrid(*axes), axis=-1)).float()[None]
    upsampled = functional.grid_sample(scores, grid, align_corners=True, padding_mode="border")
    return upsampled[0].argmax(dim=0).numpy().astype(np.uint8)


def test_what_is_measured_is_what_the_layers_give(folder: str) -> None:
    found = imported(folder).description
    # 1 (down) + 8 (wide, at stride 2) + 2 (down2); after a cell's four pixels it is less.
    assert (found.output.stride, found.input.multiple_of, found.context.phase) == (4, 1, 4)
    assert found.context.halo == 12
    assert found.classes == ("road", "sky", "tree", "car") and len(set(found.palette)) == 4


@pytest.mark.parametrize("size", [(61, 83), (200, 90), (1, 97), (17, 1), (250, 251)])
def test_windows_give_the_labels_of_the_plain_network(folder: str, size: tuple[int, int]) -> None:
    network = from_bytes(imported(folder).data)
    image = drawn_image(5, *size)
    expected = direct_labels(image)
    for window in (network.front_end.footprint.min_window, 64, 2000):
        labels = predict(network, image, max_window=window).labels
        # Near ties, rounding decides.
        assert (labels != expected).mean() < 2e-4
    whole, tiled = (score_map(network, image, max_window=window) for window in (2000, 64))
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-4)


def test_a_network_that_sees_the_whole_image_is_found(folder: str) -> None:
    made = imported(folder, whole=True)
    assert made.description.context.halo is None and "depends on the whole image" in made.text()
    network = from_bytes(made.data)
    image = drawn_image(6, 150, 190)
    assert (predict(network, image).labels != direct_labels(image, whole=True)).mean() < 2e-4
    # In windows it only comes close.
    blended = predict(network, image, max_window=200).labels
    assert blended.shape == (150, 190)


def test_overlapping_windows_cover_the_map_and_blend_smoothly() -> None:
    footprint = Footprint(4, 0, 32, "padded", overlap=64)
    windows = plan_windows(200, 75, 256, footprint)
    total = torch.zeros(200, 75)
    for window in windows:
        assert window.row % 8 == 0 and window.rows <= 64
        total[window.cells] += blend_weight(window, (200, 75), 16)
    assert total.min() > 0
    rows = sorted({(window.row, window.rows) for window in windows})
    for (first, count), (following, _) in itertools.pairwise(rows):
        assert first + count - following >= 16
    # At the border of the image the weight does not fall.
    corner = blend_weight(Window(0, 0, 64, 64), (200, 75), 16)
    assert corner[0, 0] == 1 and corner[-1, 0] < 0.01 and bool((corner[:, 0].diff() <= 0).all())


def test_a_run_with_an_imported_network_is_whole(folder: str, tmp_path: Path) -> None:
    inputs = write_inputs(str(tmp_path), 4)
    STORAGE.write(join(inputs.root, "network.safetensors"), imported(folder).data)
    STORAGE.write(join(inputs.root, "images", "00009.png"), png(picture(9, 430, 401)))
    run_here(config_of(inputs, window=380, flip=True, scales=(1.0, 1.5)))
    rows = pq.ParquetDataset(tmp_path / "out/predictions").read().to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 5
    views = config_of(inputs, flip=True, scales=(1.0, 1.5)).views()
    network = from_bytes(imported(folder).data)
    expected = predict(network, picture(9, 430, 401), views=views).labels
    assert (decode_mask(rows[4]["mask"]["bytes"]) != expected).mean() < 2e-4
    assert verify(join(inputs.root, "out")).ok


def test_the_window_of_a_network_without_bound_belongs_to_the_run(folder: str, tmp_path: Path) -> None:
    inputs = write_inputs(str(tmp_path), 2)
    STORAGE.write(join(inputs.root, "network.safetensors"), imported(folder, whole=True).data)
    run_here(config_of(inputs, window=400))
    with pytest.raises(RunConflict, match="window was 400, now 500"):
        run_here(config_of(inputs, window=500))
    with pytest.raises(RunConflict, match="overlap was 128, now 64"):
        run_here(config_of(inputs, window=400, overlap=64))


def test_overlap_is_for_networks_without_bound(folder: str, tmp_path: Path) -> None:
    inputs = write_inputs(str(tmp_path), 2)
    STORAGE.write(join(inputs.root, "network.safetensors"), imported(folder).data)
    with pytest.raises(ConfigError, match="--overlap 64 has no effect"):
        run_here(config_of(inputs, overlap=64))


def test_golden_labels_that_differ_are_refused(folder: str) -> None:
    made = imported(folder)
    network = from_bytes(made.data)
    check_golden(network)
    archive = judge(made.data)
    assert archive.golden is not None
    described = made.description.model_dump(mode="json")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        check_golden(from_bytes(add_extras(archive.data, described, archive.golden[:-1] + b"\x09")))
    network.front_end.get_parameter("program.network.last.bias").data.add_(torch.tensor([5.0, 0, 0, 0]))
    with pytest.raises(CheckpointError, match=r"% of the golden image's labels differ"):
        check_golden(network)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"classes": None}, "name no classes: give --classes"),
        ({"classes": "a,b"}, "has 4 outputs, but 2 classes are named: a, b"),
        ({"mean": None}, "do not say how pixels are standardized: give --mean"),
        ({"source": "/nowhere/at/all.pt2"}, "give the URI of an archive"),
        ({"source": "torchvision:lraspp_mobilenet_v3_large"}, "give --weights FILE"),
        ({"output_key": "7"}, "cannot export|no map"),
        ({"palette": "#804080,#46464"}, "--palette #804080,#46464 is not 4 colors"),
        ({"dynamic": True, "fixed": (256, 320)}, "--dynamic and --fixed exclude each other"),
    ],
)
def test_what_is_missing_is_named(folder: str, changes: dict[str, object], reason: str) -> None:
    source = f"{folder}/plain.pt2"
    STORAGE.write(source, archive_of())
    with pytest.raises(ConfigError, match=reason):
        import_network(request(**{"source": source, **changes}), STORAGE)


def test_a_network_for_one_size_is_refused_if_every_size_is_asked_for(folder: str) -> None:
    """This network flattens its map, whose size must therefore be known."""

    class OneSize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(64, 64)
            self.last = nn.Conv2d(3, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            small = functional.avg_pool2d(images, 32)
            mixed = self.mix(small.flatten(2)).view(-1, 3, 8, 8)
            return self.last(functional.interpolate(mixed, scale_factor=32.0) + images)

    torch.manual_seed(0)
    network = OneSize().eval()
    with pytest.raises(ConfigError, match="cannot export the network for every size"):
        export(network, None, dynamic=True)
    source = f"{folder}/one_size.pt2"
    program, tile = export(network, (256, 256))
    assert tile == (256, 256)
    STORAGE.write(source, saved(program))
    made = import_network(request(source, fixed=(256, 256), palette="#010203,#040506,#070809,#0a0b0c"), STORAGE)
    assert made.description.palette[3] == (10, 11, 12)
    image = drawn_image(2, 256, 256)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    with torch.inference_mode():
        expected = network((pixels - mean) / std)[0].argmax(dim=0).numpy()
    assert (predict(from_bytes(made.data), image).labels != expected).mean() < 1e-4


def test_an_output_is_chosen_by_its_name(folder: str) -> None:
    source = f"{folder}/two.pt2"
    STORAGE.write(source, exported(TwoOutputs(small_network())))
    made = import_network(request(source, output_key="out"), STORAGE)
    image = drawn_image(5, 61, 83)
    np.testing.assert_array_equal(
        predict(from_bytes(made.data), image).labels, predict(from_bytes(imported(folder).data), image).labels
    )


def test_a_fixed_tile_predicts_images_of_any_size(folder: str, tmp_path: Path) -> None:
    source = f"{folder}/plain.pt2"
    STORAGE.write(source, archive_of())
    made = import_network(request(source, fixed=(256, 320)), STORAGE)
    network = from_bytes(made.data)
    assert made.description.input.fixed == (256, 320)
    for size in ((61, 83), (300, 500)):
        assert predict(network, drawn_image(3, *size)).labels.shape == size
    inputs = write_inputs(str(tmp_path), 1)
    STORAGE.write(
        join(inputs.root, "network.safetensors"), import_network(request(source, fixed=(512, 320)), STORAGE).data
    )
    with pytest.raises(ConfigError, match="--window 400 is smaller than the only input of this network, 512×320"):
        run_here(config_of(inputs, window=400))


def test_the_job_says_what_it_found_and_writes_one_file(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"{folder}/plain.pt2"
    STORAGE.write(source, archive_of())
    target = f"{folder}/made.pt2"
    options = [source, "--output", target, "--classes", CLASSES, "--mean", "0.5", "0.4", "0.3"]
    assert main([*options]) == ExitCode.WRONG_USAGE
    assert "--std" in capsys.readouterr().err
    options += ["--std", "0.2", "0.25", "0.3"]
    assert main([*options, "--dry-run"]) == ExitCode.DONE and not STORAGE.exists(target)
    assert "would write" in capsys.readouterr().out
    assert main(options) == ExitCode.DONE
    assert "pixels up to 12 away can change a label" in capsys.readouterr().out
    assert STORAGE.read(target) == imported(folder).data or from_bytes(STORAGE.read(target)).spec.classes


def test_a_large_image_with_a_score_at_every_pixel_is_labeled_window_by_window(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare labels and counts with those from the whole score map, which is not assembled here."""
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).eval()
    source = f"{folder}/pixels.pt2"
    STORAGE.write(source, exported(plain))
    network = from_bytes(import_network(request(source), STORAGE).data)
    assert network.front_end.footprint.stride == 1 and network.front_end.footprint.halo == 3
    image = drawn_image(4, 210, 190)
    target = np.random.default_rng(0).integers(0, 5, (210, 190), dtype=np.uint8)
    target[target == 4] = 255
    whole = predict(network, image, confidence=True, target=target)
    inputs = write_inputs(str(tmp_path), 4)
    STORAGE.write(join(inputs.root, "network.safetensors"), import_network(request(source), STORAGE).data)
    run_here(config_of(inputs))
    monkeypatch.setattr(labels_by_window, "LARGEST_SCORE_MAP", 1000)
    monkeypatch.setattr(dense_prediction, "score_maps", None)
    tiled = predict(network, image, confidence=True, target=target, max_window=64)
    np.testing.assert_array_equal(tiled.labels, whole.labels)
    np.testing.assert_array_equal(tiled.confidence, whole.confidence)
    np.testing.assert_array_equal(tiled.confusion, whole.confusion)
    np.testing.assert_array_equal(tiled.class_pixels, whole.class_pixels)
    assert tiled.mean_entropy == pytest.approx(whole.mean_entropy, rel=1e-6)
    monkeypatch.setattr(segmenter, "score_maps", None)
    run_here(config_of(inputs, output=join(inputs.root, "out2")))
    assert differing_tables(join(inputs.root, "out"), join(inputs.root, "out2")) == []
