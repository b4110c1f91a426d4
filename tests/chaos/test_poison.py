"""Tests of images that kill or hang the decoding process: only such images fail, and the run ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.cluster import Cluster
from pipeline.data.storage import join
from pipeline.results.verify import verify
from tests.chaos.deadly_images import HANG, KILL, DecoderLog, bitmap
from tests.job_helpers import driver, finish
from tests.segmentation.support import config_of, predictions_of, run_here, write_inputs
from tests.shared import EXHAUSTIVE, STORAGE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


# Three such images in two shards of one actor. The sweep also has the default number of attempts, whose thirteen deaths
# take two minutes, and all three images in one shard.
CASES = [(13, 1), (13, 3), (30, 3)]


@pytest.mark.parametrize(("shard_images", "image_attempts"), CASES if EXHAUSTIVE else CASES[:1])
def test_images_that_kill_and_hang_their_decoder(
    cluster: Cluster, bucket: str, tmp_path: Path, shard_images: int, image_attempts: int
) -> None:
    inputs = write_inputs(bucket, 20, labelled=False)
    poison = {"00003.bmp": KILL, "00011.bmp": HANG, "00012.bmp": KILL}
    for name, marker in poison.items():
        assert marker in bitmap(marker)
        STORAGE.write(join(bucket, "images", name), bitmap(marker))
    decoder = DecoderLog(tmp_path / "decoder")
    changes = {"labels": None, "shard_images": shard_images, "max_error_fraction": 0.2}
    limits = {"step_seconds": 4, "image_attempts": image_attempts, "actors": 1}
    # First of all, because it also compiles the kernels, which takes longer than a step may.
    run_here(config_of(inputs, **changes, output=str(tmp_path / "out")))
    with driver(cluster, "segment_bucket", inputs.arguments(**changes, **limits), decoder.environment) as process:
        done = finish(process, 300)
    assert done.code == 0, done.err
    assert verify(join(bucket, "out")).ok
    ours = predictions_of(join(bucket, "out"))
    undisturbed = predictions_of(str(tmp_path / "out"))
    assert ours.keys() == undisturbed.keys() and len(ours) == 23
    for uri, row in ours.items():
        if uri.rsplit("/", 1)[1] in poison:
            assert (row["status"], row["error_stage"], row["error_type"]) == ("error", "decode", "ProcessDied"), row
        else:
            assert row == undisturbed[uri]
