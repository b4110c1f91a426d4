"""Steps of an annotation round in this process, without Ray: draw, segment, choose, annotate, train, and evaluate.

Each step calls the functions that the jobs call, so that a round takes the path of a user's data: a committed run, its
export for Label Studio, the annotator's export, painted labels, and training on all data sets from the newest network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.files.checkpoint import from_bytes
from model.kernels.preparation import prepare
from pipeline.data.annotations.paint import plan_painting
from pipeline.data.class_files import ClassRow, classes_csv
from pipeline.data.label_spaces import label_space
from pipeline.data.labels import decode_mask
from pipeline.data.storage import Storage, join
from pipeline.results.exports.export import Request, export_run
from pipeline.results.exports.label_studio import brush_rle
from pipeline.results.tables import Run
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.runs.plan import Plan
from pipeline.segmentation.runs.run import segment_bucket
from pipeline.segmentation.runs.shards import ShardReader, part_bytes, part_uri
from pipeline.segmentation.segmenter import Segmenter
from pipeline.training.config import TrainConfig
from pipeline.training.engine.trainer import NETWORK_FILE, Trainer
from pipeline.training.engine.world import World
from pipeline.training.recipes.registry import recipe
from pipeline.training.runs.checkpoints import Phase
from pipeline.training.runs.lease import Lease
from pipeline.training.runs.run import train

__all__ = ["CLASSES", "Encode", "choose_and_annotate", "draw_scenes", "judge_network", "train_network", "write_classes"]

CLASSES = label_space("street_scenes").classes
_GIB = 2**30
Encode = Callable[[int], tuple[bytes, bytes]]


def draw_scenes(images: str, labels: str, numbers: Iterable[int], encode: Encode, storage: Storage) -> None:
    """Draw scenes that are not there yet.

    Args:
        images: URI of the folder for images.
        labels: URI of the folder for labels.
        numbers: Seed of each scene, which also names its files.
        encode: Function that returns the JPEG and the label PNG of a seed.
        storage: Storage of both folders.
    """
    for number in numbers:
        label_uri = join(labels, f"{number:06d}.png")
        # The label is written last, so its presence proves that the image is there.
        if not storage.exists(label_uri):
            image, label = encode(number)
            storage.write(join(images, f"{number:06d}.jpg"), image)
            storage.write(label_uri, label)


def write_classes(data: str, storage: Storage) -> None:
    """Write `classes.csv` of the drawn scenes beside a data set's images and labels."""
    rows = [ClassRow(number, name) for number, name in enumerate(CLASSES)]
    storage.write(join(data, "classes.csv"), classes_csv(rows))


def train_network(
    data: Sequence[str],
    output: str,
    *,
    seed: int,
    weights: str | None,
    iterations: int,
    scale: float,
    storage: Storage,
) -> int:
    """Train the recipe `custom` on several data sets, or resume where an earlier call was interrupted.

    Args:
        data: URIs of the data sets.
        output: URI of the training run.
        seed: Seed of the recipe.
        weights: URI of the training run whose network is continued; None: random weights.
        iterations: Optimizer steps of the front end's stage; the context module is left out.
        scale: Widths of the network as a share of VGG-16's; -1: those of the recipe or of the weights.
        storage: Storage of all URIs.

    Returns:
        The number of images that were trained on; the others were set aside for validation.
    """
    base = recipe("custom")
    first = "none" if weights is None else join(weights, NETWORK_FILE)
    network = base.network.model_copy(update={"scale": scale, "weights": first})
    changes = {
        "seed": seed,
        "network": network,
        "front_end": base.front_end.model_copy(update={"iterations": iterations}),
        "joint": base.joint.model_copy(update={"iterations": 0}),
        "validation_images": 0,
    }
    config = TrainConfig(data=tuple(data), output=output, recipe=base.model_copy(update=changes))

    def run_phase(config: TrainConfig, phase: Phase, lease: Lease) -> None:
        Trainer(config, World(), storage).run(phase.stages)

    train(config, lambda config: None, run_phase, storage)
    claim = json.loads(storage.read(join(output, "recipe.json")))
    return int(claim["images"]["train"])


def judge_network(training: str, scenes: str, output: str, storage: Storage) -> dict[str, Any]:
    """Return mean IoU and IoU by class name of a training run's network on the scenes below `scenes`."""
    _segment(training, join(scenes, "images"), output, storage, labels=join(scenes, "labels"))
    run = Run(output, storage)
    scores = run.class_scores()
    iou = {
        name: None if isnan(value) else value for name, value in zip(scores["class_name"], scores["iou"], strict=True)
    }
    return {"mean_iou": run.success["mean_iou"], "iou": iou}


def choose_and_annotate(
    candidates: Collection[str], count: int, training: str, scenes: str, output: str, storage: Storage
) -> None:
    """Segment candidates, export the most uncertain ones as tasks, annotate them, and paint their labels.

    A call does nothing if an earlier one painted the labels.

    Args:
        candidates: URIs of unlabeled images; exactly `count` of them if the choice was made already.
        count: Number of images to annotate.
        training: URI of the training run whose network segments.
        scenes: URI of the folder with the true labels, `truth`, and the first data set, `start`.
        output: URI of the round; the painted data set is `data` below it.
        storage: Storage of all URIs.
    """
    # Labels that are painted again have a new version, and a training run that has begun would refuse them.
    if storage.exists(join(output, "data", "pairs.csv")):
        return
    listed = join(output, "candidates.txt")
    predictions = join(output, "predictions")
    storage.write(listed, "".join(f"{uri}\n" for uri in sorted(candidates)).encode())
    _segment(training, listed, predictions, storage)
    request = Request("label-studio", join(output, "tasks"), images=count, order="uncertain")
    export_run(predictions, request, storage)
    tasks = json.loads(storage.read(join(output, "tasks", "tasks.json")))
    annotated = [_annotated(number, task, join(scenes, "truth"), storage) for number, task in enumerate(tasks, start=1)]
    annotations = join(output, "annotations.json")
    storage.write(annotations, json.dumps(annotated).encode())
    classes = join(scenes, "start", "classes.csv")
    # The void border of a scene belongs to no class, like pixels that an annotator leaves out.
    plan_painting(
        annotations, join(output, "data"), images=None, classes=classes, uncovered="ignore", storage=storage
    ).paint()


def _annotated(number: int, task: dict[str, Any], truth: str, storage: Storage) -> dict[str, Any]:
    """Return a task in the form in which Label Studio exports it after the annotator has corrected its predictions."""
    name = task["data"]["image"].rsplit("/", 1)[-1].removesuffix(".jpg")
    label = decode_mask(storage.read(join(truth, f"{name}.png")))
    results = [_brush(label == class_id, name) for class_id, name in enumerate(CLASSES) if (label == class_id).any()]
    return {**task, "id": number, "annotations": [{"id": number, "was_cancelled": False, "result": results}]}


def _brush(region: NDArray[np.bool_], class_name: str) -> dict[str, Any]:
    """Return a Label Studio brush annotation of one class, from its region (H, W)."""
    height, width = region.shape
    value = {"format": "rle", "rle": brush_rle(region), "brushlabels": [class_name]}
    names = {"from_name": "brush", "to_name": "image", "type": "brushlabels"}
    return {**names, "original_height": height, "original_width": width, "value": value}


def _segment(training: str, images: str, output: str, storage: Storage, labels: str | None = None) -> None:
    """Segment images and commit the run in this process; do nothing if the run is already committed."""
    config = SegmentConfig(images=images, labels=labels, checkpoint=join(training, NETWORK_FILE), output=output)
    segment_bucket(config, lambda config: None, partial(_run_shards, storage=storage), storage)


def _run_shards(plan: Plan, shards: Sequence[int], storage: Storage) -> None:
    """Segment shards in this process and write their parts, as an actor does."""
    config = plan.config
    network = prepare(from_bytes(storage.read(config.checkpoint)), int(config.transform_memory * _GIB))
    segmenter = Segmenter(network, config, plan.run_id, storage)
    reader = ShardReader(storage, config.output, config.shard_images)
    for shard in shards:
        result = segmenter.segment(reader.rows(shard))
        data = part_bytes(result.table, result.confusion, shard, plan.identity)
        storage.write_once(part_uri(config.output, shard, plan.identity), data)
