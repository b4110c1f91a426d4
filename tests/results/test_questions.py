"""Tests of the queries of docs/questions.md, against masks and labels counted by numpy."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pytest

from pipeline.data.labels import decode_label
from pipeline.results.tables import Run
from tests.results.run_builders import CLASSES, IGNORE, entropy, write_run

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs/questions.md").read_text()
QUERIES = re.findall(r"^## (\d+) .*?^```sql\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
NAMES = [
    f"{folder}/2026-0{month}-0{day}_{number}"
    for folder in ("north", "south")
    for month in (3, 4)
    for day in (1, 2)
    for number in (1, 2)
]
FAILED = (2, 9, 10)
TREE = CLASSES.index("tree")
CAR = CLASSES.index("car")
ROAD = CLASSES.index("road")


class Pixels:
    """Counts of masks and labels, image by image, without any table except `predictions.mask`.

    Attributes:
        predicted: Pixels (C,) of each predicted class among valid label pixels, by URI.
        target, both, either: Pixels (C,) of each class by URI, in the label, in both at once, and in either.
        wrong: Pixels (C, C) by label and mask.
    """

    def __init__(self, run: Run) -> None:
        labels = run.manifest().set_index("image_uri")["label_uri"]
        self.predicted, self.target, self.both, self.either = ({} for _ in range(4))
        self.wrong = np.zeros((len(CLASSES), len(CLASSES)), int)
        for uri, mask in run.masks():
            label = decode_label(Path(labels[uri]).read_bytes(), len(CLASSES))
            valid = label != IGNORE
            np.add.at(self.wrong, (label[valid], mask[valid]), 1)
            of_mask = np.stack([(mask == c) & valid for c in range(len(CLASSES))])
            of_label = np.stack([label == c for c in range(len(CLASSES))])
            for sums, region in (
                (self.predicted, of_mask),
                (self.target, of_label),
                (self.both, of_mask & of_label),
                (self.either, of_mask | of_label),
            ):
                sums[uri] = region.sum(axis=(1, 2))


def total(sums: dict[str, np.ndarray], part: str = "") -> np.ndarray:
    return np.sum([values for uri, values in sums.items() if part in uri], axis=0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("questions")

    def earlier(index: int, mask: np.ndarray) -> np.ndarray:
        return np.where(mask == TREE, 1, mask).astype(np.uint8)

    def without_cars(index: int, label: np.ndarray) -> np.ndarray:
        return np.where(label == CAR, ROAD, label).astype(np.uint8) if index % 4 == 0 else label

    settings = {"images": 16, "relabelled": without_cars, "image_names": NAMES}
    before = write_run(folder, failed=(), name="earlier", run_id="fedcba9876543210", changed=earlier, **settings)
    now = write_run(folder, failed=FAILED, name="run", **settings)
    return Run(now), Run(before)


@pytest.fixture(scope="module")
def pixels(runs: tuple[Run, Run]) -> Pixels:
    return Pixels(runs[0])


@pytest.fixture
def answer(runs: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(Path(runs[0].output).parent)
    return lambda number: duckdb.sql(dict(QUERIES)[str(number)]).fetchall()


def test_there_are_twelve() -> None:
    assert [int(number) for number, _ in QUERIES] == list(range(1, 13))


def test_1_area_by_folder(answer, pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    expected = []
    for folder in ("north", "south"):
        areas = total(pixels.predicted, f"/{folder}/")
        expected += [
            (folder, name, round(100 * area / areas.sum(), 2)) for name, area in zip(CLASSES, areas, strict=True)
        ]
    assert answer(1) == expected


def test_2_area_over_time(answer, pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    rows = answer(2)
    assert len(rows) == 4
    for day, percent, images in rows:
        areas = total(pixels.predicted, day.isoformat())
        assert percent == pytest.approx(100 * areas[TREE] / areas.sum(), abs=0.006)
        assert images == sum(day.isoformat() in uri for uri in pixels.predicted)
    assert rows[0][0] == datetime.date(2026, 3, 1)


def test_3_worst_images(answer, pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    expected = []
    for class_id, name in enumerate(CLASSES):
        with np.errstate(invalid="ignore"):
            found = [
                (pixels.both[uri][class_id] / pixels.either[uri][class_id], uri, int(target[class_id]))
                for uri, target in pixels.target.items()
                if target[class_id] >= 100
            ]
        expected += [(name, uri, pytest.approx(100 * iou, abs=0.06), area) for iou, uri, area in sorted(found)[:3]]
    assert answer(3) == expected


def test_4_most_confused(answer, pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    of_class = pixels.wrong.sum(axis=1)
    pairs = [(t, p) for t, p in np.ndindex(*pixels.wrong.shape) if t != p and pixels.wrong[t, p]]
    pairs.sort(key=lambda pair: (-pixels.wrong[pair], *pair))
    expected = [
        (
            CLASSES[t],
            CLASSES[p],
            int(pixels.wrong[t, p]),
            pytest.approx(100 * pixels.wrong[t, p] / of_class[t], abs=0.006),
        )
        for t, p in pairs[:10]
    ]
    assert answer(4) == expected and len(expected) >= 5


def test_5_failures(answer, runs: tuple[Run, Run]) -> None:  # type: ignore[no-untyped-def]
    uris = runs[0].manifest()["image_uri"]
    assert answer(5) == [("decode", "DecodeError", 3, uris[FAILED[0]], "damaged: <truncated>")]


def test_6_uncertain(answer, runs: tuple[Run, Run]) -> None:  # type: ignore[no-untyped-def]
    uris = runs[0].manifest()["image_uri"]
    found = sorted((-entropy(at), uris[at]) for at in range(16) if at not in FAILED)
    taken: Counter[str] = Counter()
    expected = []
    for negative, uri in found:
        folder = uri.rsplit("/", 1)[0]
        taken[folder] += 1
        if taken[folder] <= 2:
            expected.append((uri, round(-negative, 3)))
    assert answer(6) == expected and len(expected) == 4


def test_7_drift(answer, runs: tuple[Run, Run], pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    now, before = (100 * sums / sums.sum() for sums in (total(each.predicted) for each in (pixels, Pixels(runs[1]))))
    rows = answer(7)
    assert {name: (was, is_now) for name, was, is_now, _ in rows} == {
        name: (pytest.approx(before[at]), pytest.approx(now[at]))
        for at, name in enumerate(CLASSES)
        if before[at] or now[at]
    }
    changes = [abs(change) for *_, change in rows]
    assert changes == sorted(changes, reverse=True) and {rows[0][0], rows[1][0]} == {"tree", "building"}


def test_8_false_alarms(answer, pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    expected = []
    for class_id, name in enumerate(CLASSES):
        found = [
            (-int(pixels.predicted[uri][class_id]), uri)
            for uri, target in pixels.target.items()
            if not target[class_id] and pixels.predicted[uri][class_id]
        ]
        if found:
            expected.append((name, min(found)[1], -min(found)[0]))
    assert answer(8) == expected and [name for name, _, _ in expected] == ["car"]


def test_9_images_behind_a_score(answer, pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    images = np.sum([target > 0 for target in pixels.target.values()], axis=0)
    iou = 100 * total(pixels.both) / total(pixels.either)
    expected = [
        (CLASSES[at], int(images[at]), pytest.approx(iou[at], abs=0.06))
        for at in sorted(range(len(CLASSES)), key=lambda at: (images[at], at))
    ]
    assert answer(9) == expected


def test_10_iou_by_folder(answer, pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    rows = dict(answer(10))
    for folder in ("north", "south"):
        ious = total(pixels.both, f"/{folder}/") / total(pixels.either, f"/{folder}/")
        assert rows[folder] == pytest.approx(100 * ious.mean(), abs=0.06)
    assert len(rows) == 2


def test_11_seconds(answer) -> None:  # type: ignore[no-untyped-def]
    assert answer(11) == [(48, 64, 13, 0.5, 0.5)]


def test_12_images_by_what_is_in_them(answer, pixels: Pixels) -> None:  # type: ignore[no-untyped-def]
    shares = {uri: areas / areas.sum() for uri, areas in pixels.predicted.items()}
    chosen = [(-share[ROAD], uri) for uri, share in shares.items() if share[CAR] > 0 and share[ROAD] >= 0.45]
    assert [uri for uri, _ in answer(12)] == [uri for _, uri in sorted(chosen)]
    assert 0 < len(chosen) < len(shares)
