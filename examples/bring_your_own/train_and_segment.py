"""Train a torchvision network on drawn street scenes in a plain loop, import it, and segment with it.

    python examples/bring_your_own/train_and_segment.py FOLDER [--steps 300]

FOLDER receives images, labels, weights, the imported network and the tables of the run. It takes minutes on two cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from demo.street.scene import draw_scene, encode_scene
from pipeline.data.label_spaces import label_space

ROOT = Path(__file__).resolve().parents[2]
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
BATCH, TRAINING, JUDGED = 8, 200, 40


def main() -> None:
    """Train, import and segment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    classes = label_space("street_scenes").classes

    train(folder, classes, options.steps)
    # Write other scenes as files, with labels to score against.
    for kind in ("images", "labels"):
        (folder / kind).mkdir(exist_ok=True)
    for seed in range(1000, 1000 + JUDGED):
        image, label = encode_scene(seed)
        (folder / "images" / f"{seed}.jpg").write_bytes(image)
        (folder / "labels" / f"{seed}.png").write_bytes(label)

    # Import the network, and segment with it.
    network_file = folder / "network.pt2"
    weights = ("--weights", str(folder / "weights.safetensors"), "--classes", ",".join(classes))
    run("import_network", "torchvision:lraspp_mobilenet_v3_large", *weights, "--output", str(network_file))
    inputs = ("--images", str(folder / "images"), "--labels", str(folder / "labels"))
    run("segment_bucket", *inputs, "--checkpoint", str(network_file), "--output", str(folder / "out"))


def train(folder: Path, classes: tuple[str, ...], steps: int) -> None:
    """Train on the scenes of seeds 0 to 199, as torchvision does: RGB, standardized, ignored pixels left out."""
    torch.manual_seed(0)
    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(classes)).train()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            # MobileNetV3 has 0.01: after a few hundred steps, its running statistics are still those of the start.
            layer.momentum = 0.1
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    scenes = [draw_scene(seed) for seed in range(TRAINING)]
    order = np.random.default_rng(0)
    for step in range(steps):
        images, labels = zip(*(scenes[index] for index in order.choice(TRAINING, BATCH)), strict=True)
        pixels = ((torch.from_numpy(np.stack(images)).float() / 255 - MEAN) / STD).permute(0, 3, 1, 2)
        target = torch.from_numpy(np.stack(labels)).long()
        loss = functional.cross_entropy(network(pixels)["out"], target, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    save_file(network.state_dict(), folder / "weights.safetensors")


def run(job: str, *arguments: str) -> None:
    """Run a job of this repository, and stop if it fails."""
    subprocess.run([sys.executable, str(ROOT / "jobs" / f"{job}.py"), *arguments], check=True)


if __name__ == "__main__":
    main()
