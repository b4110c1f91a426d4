"""Tests of the active learning benchmark in small: one seed, one round, two steps of the narrowest network."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.active_learning import STRATEGIES, Comparison, Row, Settings, summarize
from benchmarks.annotation_rounds import CLASSES
from pipeline.data.label_spaces import label_space
from pipeline.data.labels import decode_mask, encode_mask, label_values
from pipeline.results.tables import Run
from tests.shared import STORAGE

SETTINGS = Settings(start=3, per_round=2, pool=5, judge=2, iterations=(2, 2), scale=1 / 32)


def encode_blocks(seed: int) -> tuple[bytes, bytes]:
    """Return a JPEG of 40×56 pixels and its label: blocks of random classes in their colors, void in the first row."""
    palette = label_space("street_scenes").palette
    ids = np.random.default_rng(seed).integers(0, len(CLASSES), (5, 7), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    sink = io.BytesIO()
    Image.fromarray(np.asarray(palette, np.uint8)[ids]).save(sink, "JPEG")
    ids[0] = 255
    # A palette of 256 colors, so that the PNG can hold the void's 255.
    return sink.getvalue(), encode_mask(ids, (*palette, *[(0, 0, 0)] * (256 - len(palette))))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, list[Row]]:
    """Return a comparison of one seed and one round, and its results."""
    comparison = Comparison(SETTINGS, str(tmp_path_factory.mktemp("active")), encode_blocks)
    comparison.refuse_other_settings()
    comparison.draw_judge()
    comparison.draw_seed(0)
    rows = [comparison.start(0)]
    for strategy in STRATEGIES:
        rows += comparison.play(0, strategy, rounds=1)
    return comparison, rows


def test_results_name_the_round_and_score_every_class(played: tuple[Comparison, list[Row]]) -> None:
    _, rows = played
    found = [(row["seed"], row["strategy"], row["round"], row["labeled_images"]) for row in rows]
    assert found == [(0, "start", 0, 3), (0, "uncertain", 1, 5), (0, "random", 1, 5)]
    for row in rows:
        assert tuple(row["iou"]) == CLASSES
        assert 0 <= row["mean_iou"] < 1
        assert len(row["annotated"]) == (2 if row["round"] else 0)
        # The first data set sets one image aside for validation, and later ones may set some aside.
        assert 2 <= row["trained_on"] < row["labeled_images"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_annotators_labels_arrive_exactly(played: tuple[Comparison, list[Row]], strategy: str) -> None:
    root = Path(played[0].folder) / "seed-0"
    painted = sorted((root / strategy / "round-1" / "data" / "labels").glob("*.png"))
    assert len(painted) == 2
    for path in painted:
        truth = decode_mask((root / "truth" / path.name).read_bytes())
        assert (truth == 255).any()
        assert np.array_equal(label_values(path.read_bytes()), truth)


def test_the_most_uncertain_images_are_annotated(played: tuple[Comparison, list[Row]]) -> None:
    comparison, rows = played
    predictions = Run(f"{comparison.folder}/seed-0/uncertain/round-1/predictions", STORAGE).predictions()
    assert len(predictions) == SETTINGS.pool
    chosen = predictions.nlargest(2, "mean_entropy")["image_uri"]
    assert sorted(Path(uri).stem for uri in chosen) == rows[1]["annotated"]


def test_finished_rounds_are_kept(played: tuple[Comparison, list[Row]]) -> None:
    comparison, rows = played
    assert [comparison.start(0), *comparison.play(0, "uncertain", 1), *comparison.play(0, "random", 1)] == rows


def test_a_folder_belongs_to_one_set_of_settings(played: tuple[Comparison, list[Row]]) -> None:
    comparison, _ = played
    comparison.refuse_other_settings()
    with pytest.raises(ValueError, match="other settings"):
        Comparison(Settings(start=4), comparison.folder).refuse_other_settings()


def test_differences_are_paired_by_seed() -> None:
    def row(seed: int, strategy: str, number: int, mean_iou: float) -> Row:
        return {"seed": seed, "strategy": strategy, "round": number, "mean_iou": mean_iou}

    rows = [row(0, "start", 0, 0.25), row(0, "uncertain", 1, 0.75), row(0, "random", 1, 0.5)]
    rows += [row(1, "start", 0, 0.75), row(1, "uncertain", 1, 0.75), row(1, "random", 1, 1.0)]
    summary = summarize(rows)
    difference = summary["uncertain_minus_random"][0]
    assert (difference["round"], difference["by_seed"], difference["mean"]) == (1, [0.25, -0.25], 0.0)
    assert difference["std"] == pytest.approx(0.125**0.5)
    assert [each["mean"] for each in summary["mean_iou"]["random"]] == [0.5, 0.75]
    assert summarize(rows[:3])["uncertain_minus_random"][0]["std"] is None
