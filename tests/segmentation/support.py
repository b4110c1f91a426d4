"""Helpers that write small inputs and make runs of them: a network of a few channels, images of two sizes, labels."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from model.files.checkpoint import from_bytes, to_bytes
from model.kernels.preparation import prepare
from model.networks.dilated.networks import dilation8
from model.networks.front_end import FrontEndWidths
from model.networks.network import Network, NetworkSpec
from model.prediction.streams import Streams
from pipeline.data.manifest import build_manifest
from pipeline.data.storage import Storage, join
from pipeline.segmentation.config import Concurrency, SegmentConfig
from pipeline.segmentation.runs.plan import Plan
from pipeline.segmentation.runs.run import segment_bucket
from pipeline.segmentation.runs.shards import ShardReader, part_bytes, part_uri
from pipeline.segmentation.segmenter import Segmenter
from pipeline.segmentation.supervision import ShardObserver
from tests.shared import STORAGE

CLASSES = ("road", "sky", "tree", "car")
WIDTHS = FrontEndWidths((2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4), 6, 6)


def narrow_network(seed: int = 3, classes: tuple[str, ...] = CLASSES) -> Network:
    """Return a Dilation8 network with random weights that give every class some pixels."""
    torch.manual_seed(seed)
    palette = tuple((40 * n, 255 - 40 * n, 90) for n in range(len(classes)))
    network = dilation8(NetworkSpec(classes, palette, (110.0, 115.0, 120.0)), WIDTHS)
    for parameter in network.front_end.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if parameter.ndim == 4 else 0.1)
    torch.nn.init.zeros_(network.front_end.final.bias)
    return network.eval()


def png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def picture(index: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Return blocks of random colors (H, W, 3), smooth enough that neighboring classes differ clearly."""
    rng = np.random.default_rng(index)
    blocks = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def label(index: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Return class ids (H, W), with 255 in the first row."""
    ids = np.random.default_rng(1000 + index).integers(0, len(CLASSES), (height, width), dtype=np.uint8)
    ids[0] = 255
    return ids


@dataclass(frozen=True)
class Inputs:
    """Inputs of a run below one URI.

    Attributes:
        root: URI of the folder with images, labels, network and output.
    """

    root: str

    @property
    def config(self) -> dict[str, object]:
        """Arguments of a `SegmentConfig`, labels included."""
        root = self.root
        return {
            "images": join(root, "images"),
            "labels": join(root, "labels"),
            "checkpoint": join(root, "network.safetensors"),
            "output": join(root, "out"),
            "shard_images": 3,
            "actors": 2,
            "cpus_per_actor": 1,
        }

    def arguments(self, **changes: object) -> list[str]:
        """Return the arguments of a command line; a change to None drops an option."""
        options = {**self.config, **changes}
        pairs = ((f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None)
        return [str(part) for pair in pairs for part in pair]


def write_inputs(root: str, images: int = 8, *, labelled: bool = True, bad: tuple[int, ...] = ()) -> Inputs:
    """Write images, labels and the network below `root`; files of the numbers in `bad` are no images."""
    STORAGE.write(join(root, "network.safetensors"), to_bytes(narrow_network()))
    for index in range(images):
        height, width = (24, 32) if index % 3 else (41, 30)
        data = b"no picture" if index in bad else png(picture(index, height, width))
        STORAGE.write(join(root, "images", f"{index:05d}.png"), data)
        if labelled:
            STORAGE.write(join(root, "labels", f"{index:05d}.png"), png(label(index, height, width)))
    return Inputs(root)


def run_shards_here(
    plan: Plan, shards: list[int], storage: Storage = STORAGE, quarantined: Collection[str] = ()
) -> None:
    """Do the actors' work in this process, without Ray; processes seem to have died decoding the `quarantined` URIs."""
    # Prepare the network as actors do: another layout of the weights changes the order of sums, and so the last digits.
    # Read through another storage than that of the test, which may count its requests.
    network = prepare(from_bytes(STORAGE.read(plan.config.checkpoint)), int(plan.config.transform_memory * 2**30))
    segmenter = Segmenter(network, plan.config, plan.run_id, storage)
    reader = ShardReader(storage, plan.config.output, plan.config.shard_images)
    for shard in shards:
        rows = reader.rows(shard)
        observer = ShardObserver()
        observer.quarantined = {n: "decode" for n, row in enumerate(rows) if row["image_uri"] in quarantined}
        result = segmenter.segment(rows, observer)
        data = part_bytes(result.table, result.confusion, shard, plan.identity)
        storage.write_once(part_uri(plan.config.output, shard, plan.identity), data)


def run_here(config: SegmentConfig, storage: Storage = STORAGE, quarantined: Collection[str] = ()) -> None:
    """Make a whole submission in this process; see `run_shards_here`."""
    run_shards = partial(run_shards_here, storage=storage, quarantined=quarantined)
    segment_bucket(config, lambda config: None, run_shards, storage)


def assert_same_tables(output: str, undisturbed: str) -> None:
    """Assert that two runs have the same Parquet files with equal content, except for `seconds`."""
    assert differing_tables(output, undisturbed) == []


def differing_tables(output: str, undisturbed: str) -> list[str]:
    """Return names of files that only one of two runs has, and of tables that differ apart from `seconds`."""
    names, others = ({info.uri.removeprefix(out + "/") for info in STORAGE.list(out)} for out in (output, undisturbed))
    different = sorted(names ^ others)
    for name in sorted(name for name in names & others if name.endswith(".parquet")):
        ours, theirs = (pq.read_table(pa.BufferReader(STORAGE.read(join(out, name)))) for out in (output, undisturbed))
        if not without_time(ours).equals(without_time(theirs)):
            different.append(name)
    return different


def config_of(inputs: Inputs, **changes: object) -> SegmentConfig:
    return SegmentConfig.model_validate({**inputs.config, **changes})


def segment(
    inputs: Inputs, rows: list[dict[str, Any]] | None = None, streams: Streams | None = None, **changes: object
) -> pa.Table:
    """Return the `predictions` of the given rows, or of all inputs, made by a segmenter alone."""
    config = config_of(inputs, **changes)
    chosen = list(build_manifest(STORAGE, config.images, config.labels).rows()) if rows is None else rows
    # Only a GPU predicts in batches; its limits hold on a CPU too.
    overlap = Concurrency.of(config, on_gpu=config.batch_images is not None)
    return Segmenter(narrow_network(), config, "run", STORAGE, streams, overlap).segment(chosen).table


def without_time(table: pa.Table) -> pa.Table:
    """Return a table without `seconds`, the only column in which equal runs differ."""
    return table.drop_columns(["seconds"]) if "seconds" in table.column_names else table


def predictions_of(output: str, part: str | None = None) -> dict[str, dict[str, Any]]:
    """Return all rows of a run, or of the part with that URI, by image, without `seconds` and `run_id`."""
    parts = [part] if part else sorted(info.uri for info in STORAGE.list(join(output, "predictions")))
    tables = [pq.read_table(pa.BufferReader(STORAGE.read(uri))) for uri in parts]
    rows = pa.concat_tables(tables).drop_columns(["seconds", "run_id"]).to_pylist()
    found = {row["image_uri"]: row for row in rows}
    assert len(found) == len(rows), "an image has two rows"
    return found
