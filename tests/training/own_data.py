"""Helpers for users' own data: photographs with masks in common forms, and whole runs on them in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.files.checkpoint import from_bytes
from model.kernels.preparation import prepare
from pipeline.data.storage import join
from pipeline.errors import ConfigError
from pipeline.results.tables import Run
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.runs.plan import Plan
from pipeline.segmentation.runs.run import segment_bucket
from pipeline.segmentation.runs.shards import ShardReader, part_bytes, part_uri
from pipeline.segmentation.segmenter import Segmenter
from pipeline.training.config import TrainConfig
from pipeline.training.recipes.registry import recipe
from pipeline.training.runs.checkpoints import Phase
from pipeline.training.runs.lease import Lease
from pipeline.training.runs.run import train, train_here
from tests.segmentation.support import png
from tests.shared import STORAGE

NAMES = ("land", "Wasser", "空")

COLORS = np.array([(150, 110, 60), (30, 60, 200), (200, 220, 240)], np.uint8)

SIZE = (36, 52)

CLASSES_CSV = "id,name\n0,land\n128,Wasser\n255,空\n"

VALUES = np.array([0, 128, 255])

FileOf = Callable[[np.ndarray], bytes]


def scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Return (image, ids): blocks of the three classes in their colors, under noise."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 3, (-(-size[0] // 12), -(-size[1] // 12))).repeat(12, 0).repeat(12, 1)[: size[0], : size[1]]
    image = COLORS[ids] + rng.normal(0, 12, (*size, 3))
    return image.clip(0, 255).astype(np.uint8), ids


def by_value(ids: np.ndarray) -> bytes:
    return png(VALUES[ids].astype(np.uint8))


def by_color(ids: np.ndarray) -> bytes:
    return png(COLORS[ids])


def by_wide_value(ids: np.ndarray) -> bytes:
    return png(np.array([0, 128, 40_000], np.uint16)[ids])


def write_photos(
    root: str,
    count: int = 10,
    first: int = 0,
    write: FileOf = by_value,
    classes: str | None = CLASSES_CSV,
    name: str = "{}_mask.png",
) -> str:
    """Write photographs and masks in a user's layout, and a classes file unless `classes` is None."""
    for seed in range(first, first + count):
        image, ids = scene(seed)
        STORAGE.write(join(root, "images", f"p{seed:03d}.png"), png(image))
        STORAGE.write(join(root, "masks", name.format(f"p{seed:03d}")), write(ids))
    if classes is not None:
        STORAGE.write(join(root, "classes.csv"), classes.encode())
    return root


def request(data: str | list[str], output: object, **options: Any) -> TrainConfig:
    """Return a configuration of the recipe `custom` with the narrowest network and a few steps.

    Options are those of the recipe or of the run.
    """
    changes = {name: options.pop(name) for name in ("resize", "seed", "mean_bgr") if name in options}
    chosen = recipe("custom")
    network = {"scale": 1 / 32, "fc": 8, **options.pop("network", {})}
    stages = {name: options.pop(name, {"iterations": count}) for name, count in (("front_end", 3), ("joint", 1))}
    updates: dict[str, Any] = {"network": chosen.network.model_copy(update=network), **changes}
    updates |= {name: chosen.stage(name).model_copy(update=stage) for name, stage in stages.items()}
    settings: dict[str, Any] = {"data": data, "output": str(output), "recipe": chosen.model_copy(update=updates)}
    return TrainConfig(**settings, **options)


def submit(config: TrainConfig) -> TrainConfig:
    """Return the configuration that `jobs/train.py` gives its workers."""
    started: list[TrainConfig] = []

    class Started(Exception):
        """Signal that the workers were started, which ends the submission."""

    def run_phase(prepared: TrainConfig, phase: Phase, lease: Lease) -> None:
        started.append(prepared)
        raise Started

    with contextlib.suppress(Started):
        train(config, lambda config: None, run_phase, STORAGE)
    return started[0]


def train_fully(config: TrainConfig) -> str:
    """Train to the end in this process; return the URI of the network."""
    train_here(submit(config), STORAGE)
    return join(config.output, "network.safetensors")


def segment_here(**settings: Any) -> Run:
    """Run a whole segmentation in this process, with the checkpoint's own network."""
    config = SegmentConfig(**settings)

    def run_shards(plan: Plan, shards: list[int]) -> None:
        network = prepare(from_bytes(STORAGE.read(config.checkpoint)), 0)
        segmenter = Segmenter(network, plan.config, plan.run_id, STORAGE)
        reader = ShardReader(STORAGE, config.output, config.shard_images)
        for shard in shards:
            result = segmenter.segment(reader.rows(shard))
            data = part_bytes(result.table, result.confusion, shard, plan.identity)
            STORAGE.write_once(part_uri(config.output, shard, plan.identity), data)

    segment_bucket(config, lambda config: None, run_shards, STORAGE)
    return Run(config.output, STORAGE)


def refused(options: dict[str, Any], message: str, tmp_path: Path, **files: Any) -> None:
    data = write_photos(str(tmp_path / "data"), **files)
    with pytest.raises(ConfigError, match=message) as refusal:
        submit(request(data, tmp_path / "run", **options))
    assert refusal.value.exit_code == 2
    assert not (tmp_path / "run/recipe.json").exists()
