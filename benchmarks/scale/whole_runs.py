"""Small whole runs on drawn scenes, and the storage requests that they make."""

from __future__ import annotations

import io
import os
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.scale.remote import Numbers, Remote
from demo.street.scene import VOID, draw_scene
from model.files.checkpoint import from_bytes, to_bytes
from model.networks.dilated.networks import dilation8
from model.networks.front_end import FrontEndWidths
from model.networks.network import NetworkSpec
from pipeline.data.label_spaces import label_space
from pipeline.data.labels import encode_mask
from pipeline.data.storage import Storage
from pipeline.segmentation.config import SegmentConfig
from pipeline.segmentation.runs.plan import Plan
from pipeline.segmentation.runs.run import segment_bucket
from pipeline.segmentation.runs.shards import ShardReader, part_bytes, part_uri
from pipeline.segmentation.segmenter import Segmenter, ShardResult

__all__ = ["run_config", "segmented_scenes", "whole_run", "write_network"]

_SIZE = (480, 360)
_SCENES = 4
_SPACE = label_space("street_scenes")
_BUCKET = "s3://bucket"
_PLACES = {"checkpoint": f"{_BUCKET}/network.safetensors", "images": f"{_BUCKET}/images", "output": f"{_BUCKET}/out"}


def run_config(shard_images: int, **more: Any) -> SegmentConfig:
    """Return the configuration of the run that all measurements use."""
    return SegmentConfig(**{**_PLACES, "shard_images": shard_images, **more})


def write_network(storage: Storage) -> None:
    """Write a narrow network, 1/32 of VGG-16's width, because its speed is not measured."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    spec = NetworkSpec(_SPACE.classes, _SPACE.palette, (110.0, 115.0, 120.0))
    storage.write(run_config(1).checkpoint, to_bytes(dilation8(spec, FrontEndWidths.vgg16(1 / 32))))


def whole_run(images: int, shard_images: int, *, labelled: bool) -> Numbers:
    """Run a whole segmentation, and return its requests and the bytes per image of its inputs.

    Requests are counted separately for the driver before the shards, one actor, and the driver after the shards.

    Args:
        images: Number of images.
        shard_images: Images per shard.
        labelled: Whether the images have labels.
    """
    storage = Storage()
    server = Remote(os.environ["AWS_ENDPOINT_URL"])
    write_network(storage)
    inputs = _put_scenes(storage, _BUCKET, images)
    labels = {"labels": f"{_BUCKET}/labels", "label_space": _SPACE.name} if labelled else {}
    requests: Numbers = {}
    server.counts()

    def run_shards(plan: Plan, shards: list[int]) -> None:
        requests["driver before"] = server.counts()
        _act(plan, shards)
        requests["actor"] = server.counts()

    success = segment_bucket(run_config(shard_images, **labels), lambda config: None, run_shards, storage)
    requests["driver after"] = server.counts()
    assert (success["images"], success["errors"]) == (images, 0)
    per_image = {kind: round(size / images) for kind, size in inputs.items()}
    return {"images": images, "shard_images": shard_images, "requests": requests, "bytes_per_image": per_image}


def segmented_scenes(count: int) -> ShardResult:
    """Segment `count` drawn scenes with labels, and return the result of that shard."""
    storage = Storage()
    folder = f"{_BUCKET}/scenes"
    config = run_config(count, labels=f"{folder}/labels", label_space=_SPACE.name)
    _put_scenes(storage, folder, count)
    pairs = zip(*(storage.list(f"{folder}/{kind}") for kind in ("images", "labels")), strict=True)
    rows = [{"image_uri": a.uri, "label_uri": b.uri, "size": a.size, "version": a.version} for a, b in pairs]
    return Segmenter(from_bytes(storage.read(config.checkpoint)), config, "run", storage).segment(rows)


def _act(plan: Plan, shards: list[int]) -> None:
    """Do an actor's work on the shards, in order and without Ray."""
    storage = Storage()
    config = plan.config
    segmenter = Segmenter(from_bytes(storage.read(config.checkpoint)), config, plan.run_id, storage)
    reader = ShardReader(storage, config.output, config.shard_images)
    for shard in shards:
        result = segmenter.segment(reader.rows(shard))
        data = part_bytes(result.table, result.confusion, shard, plan.identity)
        assert storage.write_once(part_uri(config.output, shard, plan.identity), data)


def _put_scenes(storage: Storage, folder: str, count: int) -> dict[str, int]:
    """Write scenes into a folder, and return the total bytes of images and of labels."""
    total = {"images": 0, "labels": 0}
    for index in range(count):
        for (kind, suffix), data in zip((("images", "jpg"), ("labels", "png")), _scene(index), strict=True):
            storage.write(f"{folder}/{kind}/{index:05d}.{suffix}", data)
            total[kind] += len(data)
    return total


def _scene(index: int) -> tuple[bytes, bytes]:
    """Return a drawn scene of 480×360 as JPEG, and its label as PNG.

    Four scenes are shifted sideways by different amounts, so that no two images are equal.
    """
    moved = [np.roll(pixels, 7 * (index // _SCENES), axis=1) for pixels in _drawn(index % _SCENES)]
    sink = io.BytesIO()
    Image.fromarray(moved[0]).save(sink, "JPEG", quality=88)
    return sink.getvalue(), encode_mask(moved[1], _SPACE.palette)


@lru_cache
def _drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of a scene and of its label, with void replaced by class 0."""
    image, label = draw_scene(seed)
    large = Image.fromarray(image).resize(_SIZE, Image.Resampling.BICUBIC)
    ids = Image.fromarray(np.where(label == VOID, 0, label)).resize(_SIZE, Image.Resampling.NEAREST)
    return np.asarray(large), np.asarray(ids)
