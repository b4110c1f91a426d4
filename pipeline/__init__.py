"""Training, bulk segmentation and results of dilated-convolution networks, between a bucket and the network.

What a user of the library needs can be imported from here; each name is loaded when it is first used, so that
`import pipeline` imports neither torch nor Ray.

Example:
    from pipeline import Run, SegmentConfig, load_network, predict, segment_bucket

    config = SegmentConfig(images="s3://b/in", checkpoint="s3://b/runs/r1/network.safetensors", output="s3://b/out/x")
    segment_bucket(config)
    Run(config.output).class_scores()  # data frame, one row per class

    network = load_network(config.checkpoint)
    predict(network, image).labels  # (H, W, 3) uint8 RGB -> (H, W) uint8 class ids
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.prediction.dense_prediction import predict
    from model.prediction.label_map import LabelMap
    from pipeline.ray_backend.entry_points import segment_bucket, train
    from pipeline.results.tables import Run
    from pipeline.segmentation.config import SegmentConfig
    from pipeline.segmentation.few_images import load_network
    from pipeline.segmentation.runs.forecast import forecast
    from pipeline.training.config import TrainConfig
    from pipeline.training.recipes.registry import recipe
    from pipeline.training.recipes.schema import Recipe

__all__ = [
    "LabelMap",
    "Recipe",
    "Run",
    "SegmentConfig",
    "TrainConfig",
    "forecast",
    "load_network",
    "predict",
    "recipe",
    "segment_bucket",
    "train",
]

_MODULES = {
    "LabelMap": "model.prediction.label_map",
    "Recipe": "pipeline.training.recipes.schema",
    "Run": "pipeline.results.tables",
    "SegmentConfig": "pipeline.segmentation.config",
    "TrainConfig": "pipeline.training.config",
    "forecast": "pipeline.segmentation.runs.forecast",
    "load_network": "pipeline.segmentation.few_images",
    "predict": "model.prediction.dense_prediction",
    "recipe": "pipeline.training.recipes.registry",
    "segment_bucket": "pipeline.ray_backend.entry_points",
    "train": "pipeline.ray_backend.entry_points",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    # From now on, the name is found without this function.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the names of the module, the public ones that are not loaded yet included."""
    return sorted({*globals(), *__all__})
