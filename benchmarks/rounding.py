"""Share of labels that bfloat16 changes, rounded where a GPU rounds, on drawn scenes that no network was trained on.

    python -m benchmarks.rounding demo-output/training/network.safetensors [--images 24]

On a GPU the front end works in bfloat16 except for its last layer, and the context module in float32. For comparison,
the benchmark also runs the whole network in bfloat16. It runs on a CPU, slowly on one without bfloat16, and writes
benchmarks/results/rounding.json.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.probe import write_results
from demo.street.scene import encode_scene
from model.files.checkpoint import from_bytes
from model.networks.network import Network
from model.prediction.dense_prediction import label_map, network_input
from pipeline.data.images import decode_image

_FIRST_SEED = 9000


def main() -> None:
    """Run the benchmark, print the shares of equal labels, and write rounding.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=int, default=24)
    options = parser.parse_args()
    network = from_bytes(options.checkpoint.read_bytes())
    shares: dict[str, list[float]] = {}
    for seed in range(_FIRST_SEED, _FIRST_SEED + options.images):
        exact, *rounded = ways(network, decode_image(encode_scene(seed)[0], max_pixels=10**7))
        for name, labels in zip(("as on a GPU", "all of it"), rounded, strict=True):
            shares.setdefault(name, []).append(float((labels == exact).mean()))
    content = {name: {"mean": statistics.mean(each), "worst": min(each)} for name, each in shares.items()}
    for name, share in content.items():
        print(f"{name:<12} {share['mean']:8.3%} of labels as in float32, worst image {share['worst']:8.3%}")
    write_results("rounding", content)


@torch.inference_mode()
def ways(network: Network, image: np.ndarray) -> list[np.ndarray]:
    """Return labels (H, W) in float32, rounded as on a GPU, and with the context module rounded as well."""
    height, width = image.shape[:2]
    pixels = network_input(network, image).whole()
    exact = network(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        front = network.front_end(pixels)
        whole = network(pixels)

    def labels(scores: Tensor) -> np.ndarray:
        return label_map(network.spec, [scores[0].float()], (height, width)).labels

    return [labels(scores) for scores in (exact, network.add_context(front), whole)]


if __name__ == "__main__":
    main()
