"""Training and prediction measured on this machine's GPU, without Ray; a CPU also works, to try the benchmark.

    python -m benchmarks.gpu camvid_vgg16 --data D/camvid --output out/gpu --weights vgg16_conv_fp16.safetensors \
        [--steps] [--set joint.iterations=500 …]

With `--steps` only steps are timed: for each stage, the bare step on tensors in memory, and the loop that also prepares
samples. Without it, the recipe is trained. Then the network predicts the validation images in float32 and in bfloat16:
image by image, in batches, and from JPEGs to masks as an actor does. The benchmark writes gpu.json and a few masks into
the output, a folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.context_comparison import overridden
from benchmarks.steps import alternate
from model.files.checkpoint import from_bytes
from model.networks.network import Network
from model.prediction.dense_prediction import network_input, predict
from model.prediction.upsampling import labels_from_scores
from pipeline.data.manifest import build_manifest
from pipeline.data.storage import Storage, join
from pipeline.results.report.contact_sheet import Panel, paint_sheet
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.segmenter import Segmenter
from pipeline.training.config import TrainConfig
from pipeline.training.engine.trainer import NETWORK_FILE, Hooks
from pipeline.training.engine.world import World
from pipeline.training.recipes.registry import recipe
from pipeline.training.runs.run import train_here
from pipeline.training.samples.sources import Images, Sources

_TERA = 1e12


def main() -> None:
    """Run the benchmark and write gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", required=True, help="folder")
    parser.add_argument("--weights", default="torchvision", help="VGG-16's convolutions (BGR convention)")
    parser.add_argument("--steps", action="store_true", help="only time steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpus", type=int, default=8, help="threads that prepare samples")
    parser.add_argument("--set", nargs="*", default=[], metavar="PATH=JSON", help="recipe overrides")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = overridden(recipe(options.recipe), [f'network.weights="{options.weights}"', *options.set])
    gpus = 1.0 if device.type == "cuda" else 0.0
    config = TrainConfig(
        data=options.data, output=options.output, recipe=chosen, cpus_per_worker=options.cpus, gpus_per_worker=gpus
    )
    content = {"machine": machine(device)}
    content |= time_steps(config, options.rounds, device) if options.steps else train_and_predict(config, device)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(content, indent=1) + "\n")


def machine(device: torch.device) -> dict[str, Any]:
    """Return device name, torch version, and the rate of a bfloat16 matrix product, the ceiling of all other rates."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    side = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    seconds = median_seconds(lambda: matrix @ matrix, 10)
    content = {"device": name, "torch": torch.__version__, "bf16_product_tflops": 2 * side**3 / seconds / _TERA}
    print(json.dumps(content), flush=True)
    return content


def time_steps(config: TrainConfig, rounds: int, device: torch.device) -> dict[str, Any]:
    """Return images per second of every stage's bare step and loop, and the loop's share of waiting for samples."""
    rows: dict[str, Any] = {}
    for stage in config.recipe.stages:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        bare, loop, stall = alternate(config, stage, rounds, device)
        peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
        rows[stage] = {"bare": bare, "loop": loop, "stall": stall, "peak_gib": peak}
        print(stage, json.dumps(rows[stage]), flush=True)
    return {"steps": rows}


def train_and_predict(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """Train the recipe, and measure prediction with the trained network."""
    storage = Storage()
    started = time.perf_counter()
    train_here(config, storage, Hooks(log=lambda line: print(line, flush=True)), World(device=device))
    seconds = time.perf_counter() - started
    data = storage.read(join(config.output, NETWORK_FILE))
    content: dict[str, Any] = {"recipe": config.recipe.model_dump(mode="json"), "train_seconds": seconds}
    content |= {"network_bytes": len(data), "metrics": json.loads(storage.read(join(config.output, "metrics.json")))}
    images = Sources(config, storage).val
    return content | measure_prediction(from_bytes(data).to(device), images, Path(config.output))


def measure_prediction(network: Network, images: Images, folder: Path) -> dict[str, Any]:
    """Measure prediction: images per second, floating-point rate, and labels that bfloat16 changes; write sample masks.

    Args:
        network: Trained network on the device to measure.
        images: Validation images.
        folder: Folder for the sheet of masks.

    Returns:
        Rates, and the mean and lowest share of labels that equal those of float32.
    """
    network.to(memory_format=torch.channels_last)
    pairs = [images.pair(index) for index in range(len(images))]
    content: dict[str, Any] = {"images": len(pairs)}
    predicted = [predict(network, image).labels for image, _ in pairs]
    exact = [_float32(network, image) for image, _ in pairs[:20]]
    equal = [float((ours == theirs).mean()) for ours, theirs in zip(predicted, exact, strict=False)]
    content |= {"labels_as_float32": statistics.mean(equal), "labels_as_float32_worst": min(equal)}
    each = median_seconds(lambda: [predict(network, image) for image, _ in pairs[:20]], 5) / 20
    content |= {"predict_images_per_second": 1 / each}
    batches = (1, 4, 8) if next(network.parameters()).is_cuda else (1,)
    content["network"] = [bare_network(network, pairs[0][0], size) for size in batches]
    content["segmenter_images_per_second"] = segmenter_rate(network, [image for image, _ in pairs])
    _paint(network, pairs, predicted, folder)
    print(json.dumps(content, indent=1), flush=True)
    return content


def bare_network(network: Network, image: np.ndarray, size: int) -> dict[str, float]:
    """Measure the network alone, on a batch of `size` copies of an image that is already on the device."""
    one = network_input(network, image).whole()
    inputs = one.repeat(size, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    device = one.device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        with FlopCounterMode(display=False) as counter:
            network(inputs)
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            seconds = median_seconds(lambda: network(inputs), 7)
    rate = counter.get_total_flops() / seconds / _TERA
    return {"batch": size, "images_per_second": size / seconds, "tflops": rate}


def segmenter_rate(network: Network, images: list[np.ndarray]) -> float:
    """Return images per second of an actor's whole work on a shard, from JPEGs on disk to masks and counts."""
    storage = Storage()
    count = 400 if next(network.parameters()).is_cuda else 4
    with tempfile.TemporaryDirectory(prefix="segmenter-") as folder:
        for index in range(count):
            Image.fromarray(images[index % len(images)]).save(f"{folder}/{index:04d}.jpg", quality=90)
        config = SegmentConfig(images=folder, checkpoint="none", output="none")
        segmenter = Segmenter(network, config, "run", storage)
        rows = list(build_manifest(storage, folder).rows())
        return count / median_seconds(lambda: segmenter.segment(rows), 3)


def median_seconds(work: Callable[[], Any], rounds: int) -> float:
    """Return the median time of calls in seconds, after two warm-up calls; device work is waited for."""
    times = []
    for _ in range(rounds + 2):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


@torch.inference_mode()
def _float32(network: Network, image: np.ndarray) -> np.ndarray:
    """Predict labels in float32 throughout, without TF32 or bfloat16."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        scores = network(network_input(network, image).whole())[0]
    height, width = image.shape[:2]
    return labels_from_scores(scores, height, width, network.spec.upsampling).labels


def _paint(network: Network, pairs: list[Any], predicted: list[np.ndarray], folder: Path) -> None:
    """Write masks.jpg, a sheet of about six images with their predictions and labels."""
    spec = network.spec
    shown = range(0, len(pairs), max(1, len(pairs) // 6))
    panels = [Panel(f"{index}", pairs[index][0], predicted[index], pairs[index][1]) for index in shown]
    sheet = paint_sheet(panels, spec.classes, np.asarray(spec.palette, np.uint8), spec.ignore_label)
    sheet.convert("RGB").save(folder / "masks.jpg", quality=85)


if __name__ == "__main__":
    main()
