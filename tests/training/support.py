"""Helpers for training: a small data set that can be learned, and a small recipe that runs in seconds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.files.checkpoint import from_bytes
from pipeline.data.label_spaces import label_space
from pipeline.data.storage import Storage, join
from pipeline.training.config import TrainConfig
from pipeline.training.engine.trainer import NETWORK_FILE, Hooks, Trainer
from pipeline.training.engine.world import World
from pipeline.training.recipes.schema import NetworkConfig, Recipe, StageConfig, StageName
from pipeline.training.runs.checkpoints import Phase
from pipeline.training.runs.run import compute_maps, run_phases, train_here
from tests.segmentation.support import png
from tests.shared import STORAGE

SPACE = label_space("street_scenes")
HEIGHT = 40
WIDTH = 56


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (image, label): blocks of four classes in their palette's colors under noise, void in the first row."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 4, (HEIGHT // 8, WIDTH // 8), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    image = np.asarray(SPACE.palette, np.float64)[ids] + rng.normal(0, 12, (HEIGHT, WIDTH, 3))
    ids[0] = 255
    return image.clip(0, 255).astype(np.uint8), ids


def write_data(root: str, train: int = 6, val: int = 3) -> str:
    """Write both splits below `root`."""
    for split, first, count in (("train", 0, train), ("val", 500, val)):
        for seed in range(first, first + count):
            add_scene(root, split, seed)
    return root


def add_scene(root: str, split: str, seed: int) -> None:
    """Write one more image and its label into a split."""
    image, ids = scene(seed)
    STORAGE.write(join(root, split, "images", f"{seed:03d}.png"), png(image))
    STORAGE.write(join(root, split, "labels", f"{seed:03d}.png"), png(ids))


def run_here(config: TrainConfig, hooks: Hooks | None = None, storage: Storage = STORAGE) -> None:
    """Make a whole run in this process, as `jobs/train.py` does it with Ray."""
    train_here(config, storage, hooks)


def run_phase_here(config: TrainConfig, phase: Phase, hooks: Hooks | None = None, storage: Storage = STORAGE) -> None:
    """Compute maps, then train stages, as a single worker."""
    compute_maps(config, phase, storage, World())
    Trainer(config, World(), storage, hooks).run(phase.stages)


def run_spawned(config: TrainConfig, workers: int) -> None:
    """Make a whole run in processes of its own, connected by gloo, without Ray."""

    def spawn(stages: tuple[StageName, ...]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_spawned, args=(workers, folder, config.model_dump(mode="json"), stages), nprocs=workers)

    run_phases(config, STORAGE, World(), spawn)


def _spawned(rank: int, size: int, folder: str, settings: dict[str, Any], stages: tuple[StageName, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    Trainer(TrainConfig(**settings), World(rank, size, patient=World.barrier_group()), Storage()).run(stages)
    dist.destroy_process_group()


def small_recipe(**changes: Any) -> Recipe:
    """Return a recipe of all three stages, a few steps each."""
    stage: dict[str, Any] = {"batch": 3, "crop": 404, "optimizer": "adamw"}
    stage |= {"learning_rate": 2e-3, "schedule": "constant"}
    settings: dict[str, Any] = {
        "name": "small",
        "label_space": "street_scenes",
        "mean_bgr": (100.0, 100.0, 100.0),
        "network": NetworkConfig(scale=1 / 32, fc=8),
        "front_end": StageConfig(iterations=4, dropout=0.2, **stage),
        "context": StageConfig(iterations=3, **stage),
        "joint": StageConfig(iterations=3, **stage),
        "checkpoint_every": 2,
        "validate_every": 100,
    }
    return Recipe(**{**settings, **changes})


def tensors(output: str) -> dict[str, np.ndarray]:
    """Return the trained network's weights."""
    network = from_bytes(STORAGE.read(join(output, NETWORK_FILE)))
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def losses(output: str) -> list[tuple[int, float]]:
    """Return step and loss from the TensorBoard files."""
    with tempfile.TemporaryDirectory() as folder:
        for info in STORAGE.list(join(output, "tensorboard")):
            Path(folder, info.uri.rsplit("/", 1)[1]).write_bytes(STORAGE.read(info.uri))
        events = EventAccumulator(folder)
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars("train/loss")]


def assert_same_training(output: str, undisturbed: str) -> None:
    """Assert that weights and losses of two runs are equal to the bit."""
    ours = tensors(output)
    theirs = tensors(undisturbed)
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor, err_msg=name)
    assert losses(output) == losses(undisturbed)
