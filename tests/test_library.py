"""Tests of the names that `import pipeline` offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pipeline
from model.files.checkpoint import to_bytes
from pipeline.errors import ConfigError
from pipeline.ray_backend import entry_points
from tests.job_helpers import ROOT
from tests.segmentation.support import narrow_network, picture, run_shards_here, write_inputs
from tests.training.support import run_phase_here, write_data


def test_names_are_loaded_when_they_are_used() -> None:
    script = """
import sys
import pipeline
heavy = {"ray", "torch", "pandas", "pyarrow"}
assert {"Run", "segment_bucket", "train", "load_network", "predict"} <= set(dir(pipeline)) >= set(pipeline.__all__)
from pipeline import SegmentConfig, TrainConfig, recipe
SegmentConfig(images="in", checkpoint="network", output="out")
TrainConfig(data="data", output="out", recipe=recipe("custom"))
assert not heavy & set(sys.modules), heavy & set(sys.modules)
pipeline.Run
assert not {"ray", "torch"} & set(sys.modules)
pipeline.predict, pipeline.load_network, pipeline.forecast
assert "ray" not in sys.modules
try:
    pipeline.nonsense
except AttributeError as error:
    assert "nonsense" in str(error)
else:
    raise AssertionError("a name that does not exist")
for name in pipeline.__all__:
    assert getattr(pipeline, name).__doc__, name
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_segment_then_read_then_predict_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usage in the package's docstring; the work of Ray's actors is done in this process."""
    monkeypatch.setattr(entry_points, "connect", lambda: None)
    monkeypatch.setattr(entry_points, "check_resources", lambda config: 1)
    monkeypatch.setattr(entry_points, "run_shards", run_shards_here)
    inputs = write_inputs(str(tmp_path), 3)

    from pipeline import Run, SegmentConfig, load_network, predict, segment_bucket

    config = SegmentConfig.model_validate(inputs.config)
    assert segment_bucket(config)["images"] == 3
    run = Run(config.output)
    assert len(run.class_scores()) == len(run.classes)

    network = load_network(config.checkpoint)
    image = picture(0, 41, 30)
    found = predict(network, image)
    assert found.labels.shape == (41, 30) and found.labels.dtype == np.uint8
    assert (found.labels == run.mask(run.manifest()["image_uri"][0])).mean() > 0.99


def test_train_from_a_configuration_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_points, "connect", lambda **options: None)
    monkeypatch.setattr(entry_points, "check_workers", lambda config: None)
    monkeypatch.setattr(entry_points, "run_phase", lambda config, phase, lease: run_phase_here(config, phase))
    write_data(str(tmp_path / "data"))
    settings = pipeline.recipe("street_scenes").model_dump()
    settings["network"] |= {"scale": 1 / 32, "fc": 8}
    for stage in ("front_end", "context", "joint"):
        settings[stage] |= {"iterations": 1 if stage == "front_end" else 0, "batch": 1, "crop": 404}
    config = pipeline.TrainConfig(
        data=str(tmp_path / "data"), output=str(tmp_path / "run"), recipe=pipeline.Recipe(**settings)
    )
    assert pipeline.train(config) and not pipeline.train(config)
    assert pipeline.load_network(f"{config.output}/network.safetensors").spec.classes == config.recipe.space().classes


def test_a_dry_run_never_becomes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = pipeline.SegmentConfig.model_validate({**write_inputs(str(tmp_path), 1).config, "plan": True})
    with pytest.raises(ConfigError, match=r"pipeline\.forecast"):
        pipeline.segment_bucket(config)
    assert pipeline.forecast(config).images == 1 and not (tmp_path / "out").exists()


def test_files_that_are_no_network_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(to_bytes(narrow_network())[:100])
    with pytest.raises(ConfigError, match="not a usable checkpoint"):
        pipeline.load_network(str(tmp_path / "bad"))
    with pytest.raises(ConfigError, match=r"give the URI of a network\.safetensors"):
        pipeline.load_network(str(tmp_path / "none"))
