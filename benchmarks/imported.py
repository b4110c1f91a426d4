"""Speed of imported networks: the work of an actor beside a bare loop of the same program on decoded images.

    python -m benchmarks.imported [--images 16] [--rounds 3]

Both use one thread. The bare loop has decoded, standardized tensors and takes the class of the highest score of each
cell: no files, no upsampling, no counts, no masks. The actor's work begins with PNG bytes in storage and ends with a
table of masks. Ray is left out. SegFormer-B0 is also measured in the loop of transformers: processor, network,
post-processing.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from benchmarks.probe import alternate, write_results
from model.files.checkpoint import from_bytes
from model.kernels.host_memory import keep_freed_memory
from model.kernels.preparation import prepare
from model.networks.program.front_end import ProgramFrontEnd, drawn_image
from pipeline.data.manifest import build_manifest
from pipeline.data.storage import Storage, join
from pipeline.importing.importer import import_network
from pipeline.importing.request import ImportRequest
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.segmenter import Segmenter
from pipeline.segmentation.supervision import ShardObserver

SIDE = 512
CLASSES = ",".join(f"class {number}" for number in range(19))


def main() -> None:
    """Measure both networks, print the ratios, and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    results = {name: _measure(name, options.images, options.rounds) for name in ("segformer_b0", "unet_resnet18")}
    for name, result in results.items():
        print(f"{name}: {result}")
    write_results("imported", {"side": SIDE, "images": options.images, "networks": results})


def _measure(name: str, count: int, rounds: int) -> dict[str, Any]:
    """Return milliseconds an image of every way, and the share of the bare loop's speed that the actor reaches."""
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage()
        pictures = [drawn_image(seed, SIDE, SIDE) for seed in range(count)]
        for number, picture in enumerate(pictures):
            sink = io.BytesIO()
            Image.fromarray(picture).save(sink, "PNG")
            storage.write(join(folder, "images", f"{number:05d}.png"), sink.getvalue())
        source = Path(folder, name)
        ways = _write_source(name, source, pictures)
        options: dict[str, Any] = {"classes": CLASSES, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        made = import_network(ImportRequest(source=str(source), **options), storage)
        checkpoint = join(folder, "network.pt2")
        storage.write(checkpoint, made.data)
        ways |= {"bare loop": _bare_loop(made.data, pictures), "actor": _actor(folder, checkpoint, storage)}
        timings = alternate(ways, rounds)
    milliseconds = {way: round(1000 * timing["median"] / count, 1) for way, timing in timings.items()}
    return {
        "milliseconds_an_image": milliseconds,
        "actor_share_of_bare_loop": round(milliseconds["bare loop"] / milliseconds["actor"], 3),
    }


def _write_source(name: str, folder: Path, pictures: list[NDArray[np.uint8]]) -> dict[str, Callable[[], object]]:
    """Write a network with random weights as its package does; return the package's own loop, if it has one."""
    torch.manual_seed(0)
    classes = len(CLASSES.split(","))
    if name == "unet_resnet18":
        import segmentation_models_pytorch as smp  # type: ignore[import-untyped]

        smp.Unet("resnet18", encoder_weights=None, classes=classes).save_pretrained(str(folder))
        return {}
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    # The defaults are those of SegFormer-B0. The stub of its constructor does not know the options of every config.
    configure: Any = SegformerConfig
    network = SegformerForSemanticSegmentation(configure(num_labels=classes)).eval()
    network.save_pretrained(folder)
    processor = SegformerImageProcessor(size={"height": SIDE, "width": SIDE})
    processor.save_pretrained(folder)

    @torch.inference_mode()
    def loop() -> None:
        for picture in pictures:
            outputs = network(**processor(images=Image.fromarray(picture), return_tensors="pt"))
            processor.post_process_semantic_segmentation(outputs, target_sizes=[picture.shape[:2]])

    return {"transformers": loop}


def _bare_loop(data: bytes, pictures: list[NDArray[np.uint8]]) -> Callable[[], object]:
    """Return the loop of the program alone, on tensors that are ready."""
    front_end = from_bytes(data).front_end
    assert isinstance(front_end, ProgramFrontEnd)
    program: nn.Module = front_end.program
    ready = [
        front_end.features(torch.from_numpy(picture[:, :, ::-1].copy()).permute(2, 0, 1)[None].float())
        for picture in pictures
    ]

    @torch.inference_mode()
    def loop() -> None:
        for images in ready:
            program(images).argmax(dim=1)

    return loop


def _actor(folder: str, checkpoint: str, storage: Storage) -> Callable[[], object]:
    """Return the work of an actor on one shard."""
    config = SegmentConfig(images=join(folder, "images"), checkpoint=checkpoint, output=join(folder, "out"))
    network = prepare(from_bytes(storage.read(checkpoint)), 0)
    segmenter = Segmenter(network, config, "benchmark", storage)
    rows = [row for table in build_manifest(storage, config.images).tables() for row in table.to_pylist()]
    return lambda: segmenter.segment(rows, ShardObserver())


if __name__ == "__main__":
    main()
