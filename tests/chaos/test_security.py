"""Security tests: outside data never become code, markup, or a path outside the output; secrets stay inside."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import stat
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from jobs import report as report_job
from model.errors import CheckpointError
from model.files.checkpoint import METADATA_KEY, from_bytes, read_metadata, to_bytes
from pipeline.data.storage import Storage, join
from pipeline.errors import ConfigError, PipelineError
from pipeline.results.tables import Run
from pipeline.results.verify import verify
from pipeline.segmentation.config import SegmentConfig
from tests.segmentation.support import config_of, label, narrow_network, picture, png, run_here, write_inputs
from tests.shared import STORAGE

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [
    path for folder in ("model", "pipeline", "jobs", "demo", "benchmarks") for path in (ROOT / folder).rglob("*.py")
]
CODE_IN_DATA = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
MARK = "hunter2-do-not-show"


def calls(tree: ast.AST) -> list[str]:
    """Return the text of every call."""
    return [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_no_module_loads_code_from_data() -> None:
    assert len(SHIPPED) > 80
    for path in SHIPPED:
        tree = ast.parse(path.read_text())
        imported = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & CODE_IN_DATA, path
        for call in calls(tree):
            if re.match(r"torch\.load\(", call):
                # The restricted loader reads tensors and plain containers alone.
                assert "weights_only=True" in call, (path, call)
            assert not re.match(r"(eval|exec|compile|__import__|yaml\.load|os\.system)\(", call), (path, call)
            assert "allow_pickle=True" not in call and "shell=True" not in call and "weights_only=False" not in call, (
                path
            )


def checkpoint(**changes: Any) -> bytes:
    data = to_bytes(narrow_network())
    return save(load(data), {METADATA_KEY: json.dumps({**read_metadata(data, METADATA_KEY), **changes})})


def with_header(header: dict[str, Any], body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


HOSTILE_CHECKPOINTS: dict[str, Callable[[], bytes]] = {
    "length beyond the file": lambda: struct.pack("<Q", 2**63) + b"{}",
    "a header of 200 MB that is not there": lambda: struct.pack("<Q", 200 * 2**20) + b"{" * 1000,
    "nested JSON": lambda: struct.pack("<Q", 200_002) + deep(100_001).encode(),
    "nested metadata": lambda: with_header({"__metadata__": {METADATA_KEY: deep(100_000)}}),
    "a tensor of 2**60 values": lambda: with_header(
        {
            "__metadata__": {METADATA_KEY: json.dumps(read_metadata(checkpoint(), METADATA_KEY))},
            "conv1_1.weight": {"dtype": "F32", "shape": [2**30, 2**30], "data_offsets": [0, 4]},
        },
        b"1234",
    ),
    "a name twice": lambda: b"".join((struct.pack("<Q", 44), b'{"__metadata__":{},"__metadata__":{"a":"b"}}')),
    "NaN as a mean": lambda: checkpoint(mean_bgr=[float("nan")] * 3),
    "an endless mean": lambda: checkpoint(mean_bgr=[1e308] * 3),
    "markup with control characters": lambda: checkpoint(classes=["road", "sky", "tree", "\x1b[31m<script>"]),
    "half a surrogate": lambda: checkpoint(classes=["road", "sky", "tree", "\ud800"]),
    "a name of a megabyte": lambda: checkpoint(classes=["road", "sky", "tree", "x" * 2**20]),
    "256 classes": lambda: checkpoint(classes=[f"c{n}" for n in range(256)], palette=[[0, 0, 0]] * 256),
    "dilation of a billion": lambda: checkpoint(context={"dilations": [1, 1, 2, 10**9, 8, 16, 1], "padding": "layer"}),
    "a window of a million": lambda: checkpoint(reference_window=[10**6, 10**6]),
    "a pickle": lambda: b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.",
}


@pytest.mark.parametrize("name", HOSTILE_CHECKPOINTS)
def test_hostile_checkpoints_are_refused_in_a_line_and_at_no_cost(name: str) -> None:
    data = HOSTILE_CHECKPOINTS[name]()
    tracemalloc.start()
    with pytest.raises(CheckpointError) as refused:
        from_bytes(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(refused.value).isprintable() and len(str(refused.value)) < 500
    assert peak < 20 * 2**20 + 10 * len(data)
    assert not Path("owned").exists()


NAMES = (
    "%2e%2e%2fescape.png",
    "a/../../../escape.png",
    "<script>alert(1)</script>.png",
    '"onerror=alert(1) x=".png',
    "$(touch owned);`touch owned`.png",
    "_underscore.png",
    "' OR 1=1 --.png",
    "name\nof two lines.png",
    "ü\u202egnp.png",
    "x" * 200 + ".png",
)


def test_names_are_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of images are never paths to write to, markup in the report, SQL, or commands."""
    root = tmp_path / "base"
    inputs = write_inputs(str(root), 2)
    for number, name in enumerate(NAMES):
        place = root / "images" / name.replace("a/../../../", "a_.._.._.._")
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(png(picture(number)) if number % 5 == 0 else b"no picture: " + name.encode())
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    run_here(config_of(inputs, max_error_fraction=0.9))
    out = join(str(root), "out")
    assert verify(out).ok and report_job.main([out]) == 0
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before, "something else was written"
    written = {str(path.relative_to(out)) for path in Path(out).rglob("*") if path.is_file()}
    assert all(re.fullmatch(r"[\w./-]+", name) for name in written), "files are named by shard, never by image"
    page = Path(out, "report", "index.html").read_text()
    assert "<script" not in page and 'onerror=alert(1) x="' not in page and "&lt;script&gt;" in page
    rows = duckdb.sql(f"select image_uri from '{out}/predictions/*.parquet'").fetchall()
    assert len(rows) == len({uri for (uri,) in rows}) == len(NAMES) + 2
    assert not Path("owned").exists() and "owned;" not in capsys.readouterr().err


def test_a_committed_run_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    inputs = write_inputs(str(tmp_path / "base"), 2)
    run_here(config_of(inputs))
    out = Path(inputs.root, "out")
    sound = json.loads((out / "_SUCCESS.json").read_text())
    (tmp_path / "secret.parquet").write_bytes(b"secret")
    for path in ("../../secret.parquet", "/etc/passwd", "predictions/../../../secret.parquet", ""):
        hostile = {**sound, "files": [{**sound["files"][0], "path": path}, *sound["files"][1:]]}
        (out / "_SUCCESS.json").write_text(json.dumps(hostile))
        with pytest.raises(ConfigError, match="below the run"):
            Run(str(out))


def test_configuration_from_outside_has_no_unknown_or_endless_values() -> None:
    good = {"images": "in", "checkpoint": "c", "output": "out"}
    for bad in ({"shell": "x"}, {"shard_images": 10**9}, {"max_pixels": 10**12}, {"window": -1}, {"actors": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            SegmentConfig.model_validate({**good, **bad})


def test_secrets_are_in_no_output_and_no_message(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = write_inputs(bucket, 3, bad=(1,))
    STORAGE.list(bucket)
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    key = os.environ["AWS_ACCESS_KEY_ID"]
    with caplog.at_level(logging.DEBUG, "pipeline"):
        run_here(config_of(inputs, max_error_fraction=0.9), Storage())
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", MARK)
        with pytest.raises(PipelineError) as refused:
            run_here(config_of(inputs, output=join(bucket, "other")), Storage())
    outputs = b"".join(STORAGE.read(info.uri) for info in STORAGE.list(join(bucket, "out")))
    for text in (outputs.decode("latin-1"), str(refused.value), caplog.text):
        assert secret not in text and MARK not in text
    assert f'"{key}"' not in outputs.decode("latin-1")


def test_local_outputs_are_no_programs(tmp_path: Path) -> None:
    inputs = write_inputs(str(tmp_path), 1)
    run_here(config_of(inputs))
    for path in Path(inputs.root, "out").rglob("*.*"):
        assert not path.stat().st_mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH | stat.S_IWOTH) or path.is_dir()


def test_labels_cannot_be_scripts_of_the_network(tmp_path: Path) -> None:
    """A label image with any bytes yields pixels or an error row."""
    inputs = write_inputs(str(tmp_path), 2)
    Path(inputs.root, "labels", "00000.png").write_bytes(b"<?php system('touch owned'); ?>")
    Path(inputs.root, "labels", "00001.png").write_bytes(png(np.asarray(label(1))))
    run_here(config_of(inputs, max_error_fraction=0.9))
    assert Run(join(inputs.root, "out")).success["errors"] == 1
    assert torch.is_grad_enabled() and not Path("owned").exists()
