"""Baselines: the whole job in three common forms: Ray Data as documented, a DataLoader, and a plain loop.

Each reads JPEGs, runs the network on the reflected image, upsamples all classes, takes the maximum and writes palette
PNGs with pixel counts. None of them survives a fault, scores an image or bounds its memory.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.mock_network import stand_in
from model.files.checkpoint import from_bytes
from model.networks.dilated.geometry import MARGIN, OUTPUT_STRIDE, score_map_size
from model.networks.network import Network

__all__ = ["by_data_loader", "by_loop", "by_ray_data", "load"]


def load(checkpoint: Path) -> Network:
    """Return the checkpoint's network, or the mock network that its provenance asks for."""
    network = from_bytes(checkpoint.read_bytes())
    seconds = network.spec.provenance.get("stand_in_seconds")
    return network if seconds is None else stand_in(float(seconds))


class Usual:
    """Predictor of all baselines, callable by Ray Data's `map_batches`."""

    def __init__(self, checkpoint: Path, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.network = load(checkpoint)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        masks, counts = zip(*(self.predict(image) for image in batch["image"]), strict=True)
        return {"path": batch["path"], "mask": list(masks), "counts": list(counts)}

    @torch.inference_mode()
    def predict(self, image: np.ndarray) -> tuple[bytes, list[int]]:
        """Convert an RGB image (H, W, 3) to a palette PNG and the number of pixels of each class."""
        height, width = image.shape[:2]
        cells = score_map_size(height, width)
        after = [count * OUTPUT_STRIDE + MARGIN - length for count, length in zip(cells, (height, width), strict=True)]
        # Reflect the image at its borders, then (H, W, 3) RGB -> (1, 3, h, w) BGR minus the mean.
        padded = np.pad(image, ((MARGIN, after[0]), (MARGIN, after[1]), (0, 0)), mode="reflect")
        pixels = padded[:, :, ::-1].astype(np.float32) - np.array(self.network.spec.mean_bgr, np.float32)
        scores = self.network(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])
        # (1, C, rows, columns) -> (1, C, H, W): upsample all classes, then take the maximum.
        size = [(count - 1) * OUTPUT_STRIDE + 1 for count in cells]
        whole = nn.functional.interpolate(scores.softmax(1), size=size, mode="bilinear", align_corners=True)
        labels = whole[0, :, :height, :width].argmax(0).to(torch.uint8).numpy()
        sink = io.BytesIO()
        picture = Image.fromarray(labels, "P")
        picture.putpalette(np.array(self.network.spec.palette, np.uint8).tobytes())
        picture.save(sink, "PNG")
        return sink.getvalue(), np.bincount(labels.ravel(), minlength=whole.shape[1]).tolist()


def by_ray_data(images: Path, checkpoint: Path, output: Path, actors: int) -> None:
    """Segment images with Ray Data: `read_images`, `map_batches` with actors, `write_parquet`."""
    dataset = ray.data.read_images(str(images), include_paths=True, mode="RGB")
    predicted = dataset.map_batches(
        Usual,
        fn_constructor_args=(checkpoint,),
        batch_size=16,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
    )
    predicted.write_parquet(str(output))


class _Folder(Dataset[tuple[str, np.ndarray]]):
    """Images of a folder as (path, RGB array (H, W, 3))."""

    def __init__(self, images: Path) -> None:
        self.paths = sorted(images.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray]:
        return str(self.paths[index]), np.asarray(Image.open(self.paths[index]).convert("RGB"))


def by_data_loader(images: Path, checkpoint: Path, output: Path, threads: int) -> float:
    """Return images per second in steady state, with one process that decodes beside this one."""
    loader = DataLoader(_Folder(images), batch_size=None, num_workers=1)
    return _drain(iter(loader), len(loader), Usual(checkpoint, threads), output)


def by_loop(images: Path, checkpoint: Path, output: Path, threads: int) -> float:
    """Return images per second of a plain loop that decodes and predicts in turn."""
    folder = _Folder(images)
    return _drain((folder[index] for index in range(len(folder))), len(folder), Usual(checkpoint, threads), output)


def _drain(pairs: Iterator[tuple[str, Any]], count: int, usual: Usual, output: Path) -> float:
    """Predict all pairs, write them as Parquet, and return images per second without the first tenth."""
    rows = []
    started = 0.0
    warm = count // 10
    for index, (path, image) in enumerate(pairs):
        if index == warm:
            started = time.perf_counter()
        mask, counts = usual.predict(np.asarray(image))
        rows.append({"path": path, "mask": mask, "counts": counts})
    output.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), output / "part.parquet")
    return (count - warm) / (time.perf_counter() - started)
