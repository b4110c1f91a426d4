"""A run with a network of another family than the paper's: the same guarantees, without a line of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from model.files.checkpoint import to_bytes
from model.networks.families import FAMILIES
from model.networks.front_end import CONV_NAMES, FrontEndWidths
from model.networks.network import ContextSpec, Network, NetworkSpec
from model.prediction.dense_prediction import predict
from pipeline.data.labels import decode_mask
from pipeline.data.storage import join
from pipeline.errors import ConfigError
from pipeline.results.verify import verify
from tests.model.padded_family import PADDED, UPSAMPLING, PaddedFrontEnd, padded_network
from tests.segmentation.support import CLASSES, Inputs, config_of, picture, png, run_here, write_inputs
from tests.shared import STORAGE

SPEC = NetworkSpec(
    CLASSES,
    tuple((40 * n, 200, 90) for n in range(len(CLASSES))),
    (110.0, 115.0, 120.0),
    upsampling=UPSAMPLING,
    context=ContextSpec((1, 1, 2, 1)),
    family=PADDED,
    family_options={"dilation": 3},
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, PADDED, PaddedFrontEnd)


def write_padded(root: Path, network: Network) -> Inputs:
    """Write the usual inputs with a padded network, and one image that needs several windows."""
    inputs = write_inputs(str(root), 4)
    STORAGE.write(join(inputs.root, "network.safetensors"), to_bytes(network))
    STORAGE.write(join(inputs.root, "images", "00009.png"), png(picture(9, 430, 401)))
    return inputs


def test_masks_are_those_of_whole_images(tmp_path: Path) -> None:
    network = padded_network(SPEC)
    inputs = write_padded(tmp_path, network)
    run_here(config_of(inputs, window=380, batch_images=4))
    rows = pq.ParquetDataset(tmp_path / "out/predictions").read().to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 5
    for index, row in zip((0, 1, 2, 3, 9), rows, strict=True):
        size = (430, 401) if index == 9 else (24, 32) if index % 3 else (41, 30)
        whole = predict(network, picture(index, *size)).labels
        np.testing.assert_array_equal(decode_mask(row["mask"]["bytes"]), whole)
    assert verify(join(inputs.root, "out"), STORAGE).ok


def test_a_window_that_holds_no_cell_is_refused_before_any_work(tmp_path: Path) -> None:
    spec = NetworkSpec(**{**SPEC.__dict__, "family_options": {"dilation": 200}, "context": None})
    front_end = PaddedFrontEnd.build(spec, FrontEndWidths((2,) * len(CONV_NAMES), 2, 2), 0.0)
    inputs = write_padded(tmp_path, Network(spec, front_end, None))
    with pytest.raises(ConfigError, match=r"windows of 400 pixels hold no cell .* use --window 820"):
        run_here(config_of(inputs, window=400))
