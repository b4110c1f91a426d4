"""Tests of one shard: rows against direct calls of the network, and bad images that do not affect their neighbors."""

from __future__ import annotations

import contextlib
import gc
import io
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.prediction.dense_prediction import predict, score_maps
from model.prediction.window_input import WindowInput
from pipeline.data.labels import decode_mask
from pipeline.data.manifest import build_manifest
from pipeline.data.storage import RetryPolicy, Storage
from pipeline.errors import StorageError
from pipeline.segmentation import loading
from pipeline.segmentation import segmenter as module
from pipeline.segmentation.segmenter import Segmenter
from pipeline.segmentation.supervision import ShardObserver
from tests.segmentation.support import (
    CLASSES,
    Inputs,
    config_of,
    label,
    narrow_network,
    picture,
    png,
    segment,
    write_inputs,
)
from tests.shared import STORAGE


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return write_inputs(str(tmp_path), 5)


def test_rows_hold_what_the_network_says(inputs: Inputs) -> None:
    rows = segment(inputs).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 5
    for index, row in enumerate(rows):
        size = (24, 32) if index % 3 else (41, 30)
        expected = predict(narrow_network(), picture(index, *size))
        mask = decode_mask(row["mask"]["bytes"])
        ids = label(index, *size)
        assert np.array_equal(mask, expected.labels)
        assert (row["height"], row["width"]) == size == mask.shape
        valid = ids != 255
        assert row["pixel_accuracy"] == pytest.approx((mask == ids)[valid].mean())
        for counts, name in zip(row["classes"], CLASSES, strict=True):
            of_class = counts["class_id"]
            assert counts["class_name"] == name
            assert counts["predicted_pixels"] == ((mask == of_class) & valid).sum()
            assert counts["target_pixels"] == (ids == of_class).sum()
            assert counts["intersection"] == ((ids == of_class) & (mask == of_class)).sum()


def test_views_are_averaged_whatever_the_window_and_the_batch(inputs: Inputs) -> None:
    changes: dict[str, object] = {"flip": True, "scales": (0.75, 1.0), "window": 380, "batch_images": 4}
    rows = segment(inputs, **changes).to_pylist()
    for index, row in enumerate(rows):
        size = (24, 32) if index % 3 else (41, 30)
        views = config_of(inputs, **changes).views()
        expected = predict(narrow_network(), picture(index, *size), views=views)
        assert len(views) == 4 and (row["height"], row["width"]) == size
        assert np.array_equal(decode_mask(row["mask"]["bytes"]), expected.labels)
        assert row["mean_entropy"] == pytest.approx(expected.mean_entropy)
        assert (expected.labels != predict(narrow_network(), picture(index, *size)).labels).any()


@pytest.mark.parametrize("scales", [(), (1.0, 1.0), (3.0,), (0.1,)])
def test_scales_that_mean_nothing_are_refused(inputs: Inputs, scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scales"):
        config_of(inputs, scales=scales)


def test_every_class_is_predicted_somewhere(inputs: Inputs) -> None:
    """Otherwise the tests above would compare constants."""
    masks = [decode_mask(row["mask"]["bytes"]) for row in segment(inputs).to_pylist()]
    assert len(np.unique(np.concatenate([mask.ravel() for mask in masks]))) >= 3


def test_bad_images_become_rows_and_neighbours_stay_as_they_are(inputs: Inputs) -> None:
    before = segment(inputs).to_pylist()
    root = Path(inputs.root)
    manifest = list(build_manifest(STORAGE, *(str(root / name) for name in ("images", "labels"))).rows())
    (root / "images/00001.png").unlink()
    (root / "images/00002.png").write_bytes(png(picture(99)))
    (root / "labels/00003.png").write_bytes(png(label(3, 20, 20)))
    rows = segment(inputs, manifest).to_pylist()
    assert [(row["error_stage"], row["error_type"]) for row in rows[1:4]] == [
        ("fetch", "missing"),
        ("fetch", "changed"),
        ("label", "DecodeError"),
    ]
    assert "41×30" in rows[3]["error_message"]
    for row in rows[1:4]:
        assert row["status"] == "error" and row["mask"] is None and row["classes"] is None and row["height"] is None
    drop = {"seconds"}
    for index in (0, 4):
        assert {k: v for k, v in rows[index].items() if k not in drop} == {
            k: v for k, v in before[index].items() if k not in drop
        }


@pytest.mark.parametrize(
    ("data", "stage", "message"),
    [
        (b"", "decode", "empty"),
        (b"no picture", "decode", "not a JPEG"),
        (png(picture(1))[:80], "decode", "truncated"),
        (png(np.zeros((200, 200, 3), np.uint8)), "decode", "pixels"),
    ],
    ids=["empty", "text", "cut", "large"],
)
def test_undecodable_images(inputs: Inputs, data: bytes, stage: str, message: str) -> None:
    Path(inputs.root, "images/00001.png").write_bytes(data)
    row = segment(inputs, max_pixels=10_000).to_pylist()[1]
    assert (row["status"], row["error_stage"]) == ("error", stage)
    assert message in row["error_message"]


def test_labels_of_other_classes_are_an_error_of_the_label(inputs: Inputs) -> None:
    Path(inputs.root, "labels/00000.png").write_bytes(png(np.full((41, 30), 9, np.uint8)))
    row = segment(inputs).to_pylist()[0]
    assert (row["error_stage"], row["status"]) == ("label", "error")
    assert "9" in row["error_message"]


def test_without_labels_scores_are_null(tmp_path: Path) -> None:
    row = segment(write_inputs(str(tmp_path), 1, labelled=False), labels=None).to_pylist()[0]
    assert row["mean_iou"] is None and row["pixel_accuracy"] is None
    assert sum(counts["predicted_pixels"] for counts in row["classes"]) == row["height"] * row["width"]
    assert row["classes"][0]["target_pixels"] is None


def test_confidence_maps_are_the_winning_probability(inputs: Inputs) -> None:
    row = segment(inputs, confidence_maps=True).to_pylist()[1]
    grey = np.asarray(Image.open(io.BytesIO(row["confidence"]["bytes"])))
    expected = predict(narrow_network(), picture(1), confidence=True)
    assert grey.shape == (24, 32) and grey.dtype == np.uint8
    assert np.abs(grey - expected.confidence * (255 if expected.confidence.dtype != np.uint8 else 1)).max() <= 1
    assert grey.mean() / 255 == pytest.approx(row["mean_confidence"], abs=0.01)


def test_broken_storage_ends_the_shard_instead_of_blaming_images(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(RetryPolicy(attempts=2, first_delay=0.01, max_delay=0.02))
    manifest = list(build_manifest(storage, f"{inputs.root}/images").rows())

    def refuse(*_: object, **__: object) -> bytes:
        raise OSError("the disk is gone")

    monkeypatch.setattr(type(storage.filesystem(inputs.root)[0]), "cat_file", refuse)
    with pytest.raises(StorageError, match="the disk is gone"):
        Segmenter(narrow_network(), config_of(inputs), "run", storage).segment(manifest)


def batches_of(monkeypatch: pytest.MonkeyPatch, most: Callable[[int, int], bool]) -> list[tuple[int, int]]:
    """Record (images, window) of every call of the network; calls for which `most` is false run out of memory."""
    calls = []

    def within(network: object, images: list[object], *, max_window: int, **options: object) -> object:
        calls.append((len(images), max_window))
        if not most(len(images), max_window):
            raise torch.OutOfMemoryError("injected")
        return score_maps(network, images, max_window=max_window, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "score_maps", within)
    return calls


def test_neighbours_of_one_size_are_predicted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third image has another size, and number 5 is not an image."""
    inputs = write_inputs(str(tmp_path), 9, bad=(5,))
    alone = segment(inputs)
    calls = batches_of(monkeypatch, lambda images, window: True)
    together = segment(inputs, batch_images=3)
    assert [images for images, _ in calls] == [1, 2, 1, 1, 1, 2]
    assert together["mask"].equals(alone["mask"])
    assert together["error_stage"].to_pylist() == alone["error_stage"].to_pylist()


def test_out_of_memory_is_answered_with_fewer_images_and_smaller_windows(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = segment(inputs)
    calls = batches_of(monkeypatch, lambda images, window: images == 1 and window <= 400)
    table = segment(inputs, window=900, batch_images=2)
    assert calls[:3] == [(1, 900), (1, 450), (1, 380)]
    assert calls[3:7] == [(2, 900), (1, 900), (1, 450), (1, 380)]
    assert table["mask"].equals(whole["mask"])


def test_an_image_that_never_fits_is_an_error_row(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    batches_of(monkeypatch, lambda images, window: False)
    assert set(segment(inputs, batch_images=2)["error_stage"].to_pylist()) == {"predict"}


def test_a_retry_starts_after_the_tensors_of_the_failed_attempt_are_gone(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: activations of the failed batch that a traceback keeps alive, so that no smaller window fits either."""
    whole = segment(inputs)
    kept: list[weakref.ref[torch.Tensor]] = []
    retries: list[tuple[int, int]] = []

    def failing(network: object, images: list[object], *, max_window: int, **options: object) -> object:
        if kept:
            retries.append((len(images), max_window))
        assert [tensor for tensor in kept if tensor() is not None] == []
        if len(images) > 1 or max_window > 400:
            activations = torch.zeros(1000)
            kept.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return score_maps(network, images, max_window=max_window, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "score_maps", failing)
    # The collector must not be needed: torch's allocator does not start it.
    gc.disable()
    try:
        table = segment(inputs, window=900, batch_images=2)
    finally:
        gc.enable()
    assert (1, 900) in retries and (1, 450) in retries and (1, 380) in retries
    assert table["mask"].equals(whole["mask"])


def test_an_image_that_never_fits_leaves_its_batch_alone(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit: memory that one image of a batch needs, and the others do not."""
    whole = segment(inputs).to_pylist()

    def failing(network: object, images: list[WindowInput], **options: object) -> object:
        if any(np.array_equal(image._image, picture(1)) for image in images):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return score_maps(network, images, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "score_maps", failing)
    rows = segment(inputs, batch_images=2).to_pylist()
    assert [row["error_stage"] for row in rows] == [None, "predict", None, None, None]
    assert [row["mask"] for row in rows if row["mask"]] == [whole[index]["mask"] for index in (0, 2, 3, 4)]


# What allocators raise: numpy and Python, torch on a GPU, and torch on a CPU.
NO_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=["host", "gpu", "torch on a CPU"])
@pytest.mark.parametrize(
    ("owner", "function", "stage", "kind"),
    [
        (Storage, "read", "fetch", "DecodeError"),
        (loading, "decode_image", "decode", "DecodeError"),
        (loading, "decode_label", "label", "DecodeError"),
        (loading, "network_input", "predict", "PredictionError"),
        (module, "label_map", "predict", "PredictionError"),
        (module, "encode_mask", "predict", "PredictionError"),
    ],
)
def test_out_of_memory_anywhere_is_the_error_of_one_image(
    inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    function: str,
    stage: str,
    kind: str,
    error: Exception,
) -> None:
    """Limit: memory outside the network; the run goes on, and the neighbors stay as they are."""
    whole = segment(inputs).to_pylist()
    work = getattr(owner, function)
    manifest = list(build_manifest(STORAGE, f"{inputs.root}/images", f"{inputs.root}/labels").rows())
    # One image at a time, so that calls of a function come in the order of the images.
    observer = _Noting(overlapping=False)

    def failing(*args: object, **options: object) -> object:
        if [place for place, _ in observer.stages][-1] == 1 and (stage == "predict" or observer.stages[-1][1] == stage):
            raise error
        return work(*args, **options)

    monkeypatch.setattr(owner, function, failing)
    segmenter = Segmenter(narrow_network(), config_of(inputs), "run", STORAGE)
    rows = segmenter.segment(manifest, observer).table.to_pylist()
    assert [(row["error_stage"], row["error_type"]) for row in rows] == [
        (None, None),
        (stage, kind),
        *[(None, None)] * 3,
    ]
    assert "out of memory" in rows[1]["error_message"]
    assert [row["mask"] for row in rows if row["mask"]] == [whole[index]["mask"] for index in (0, 2, 3, 4)]


def test_an_object_that_does_not_fit_is_the_error_of_its_image(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit: memory while a body is read; it is not a failure of storage, and is not tried again."""
    storage = Storage(RetryPolicy(attempts=2, first_delay=0.01, max_delay=0.02))
    manifest = list(build_manifest(storage, f"{inputs.root}/images").rows())
    kind = type(storage.filesystem(inputs.root)[0])
    read = kind.cat_file

    def failing(self: object, path: str, *args: object, **options: object) -> bytes:
        if path.endswith("00001.png"):
            raise MemoryError
        return read(self, path, *args, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(kind, "cat_file", failing)
    table = Segmenter(narrow_network(), config_of(inputs), "run", storage).segment(manifest).table
    assert table["error_stage"].to_pylist() == [None, "fetch", None, None, None]


def test_input_that_does_not_fit_whole_is_cut_into_windows(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit: memory for the network input of a whole image, which is prepared ahead of the network."""
    whole = segment(inputs)

    def failing(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(WindowInput, "prepare", failing)
    assert segment(inputs)["mask"].equals(whole["mask"])


class _Noting(ShardObserver):
    """Observer that records all events."""

    def __init__(self, overlapping: bool = True, quarantined: dict[int, str] | None = None) -> None:
        self.overlapping = overlapping
        self.quarantined = quarantined or {}
        self.images: list[bool] = []
        self.stages: list[tuple[int, str]] = []
        self.parts = 0

    def image(self, ok: bool) -> None:
        self.images.append(ok)

    def stage(self, position: int, name: str) -> None:
        self.stages.append((position, name))

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[], None]]:
        def count() -> None:
            self.parts += 1

        yield count


def test_progress_is_told_image_by_image_and_window_by_window(tmp_path: Path) -> None:
    inputs = write_inputs(str(tmp_path), 4, bad=(2,))
    observer = _Noting()
    manifest = list(build_manifest(STORAGE, f"{inputs.root}/images").rows())
    Segmenter(narrow_network(), config_of(inputs, window=380), "run", STORAGE).segment(manifest, observer)
    assert observer.images == [True, True, False, True]
    windows = [(-(-height // 8) + 1) * (-(-width // 8) + 1) for height, width in ((41, 30), (24, 32), (41, 30))]
    assert observer.parts == sum(windows) + 3, "after every window of one cell, and after the context module"


def test_two_shards_at_once_take_turns_at_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second shard loads while the first is predicted, and the two do not alternate image by image."""
    inputs = write_inputs(str(tmp_path), 8)
    order = list[str]()
    manifest = list(build_manifest(STORAGE, f"{inputs.root}/images").rows())
    segmenter = Segmenter(narrow_network(), config_of(inputs), "run", STORAGE)
    expected = [segmenter.segment(half).table.drop(["seconds"]) for half in (manifest[:4], manifest[4:])]
    second_loads = threading.Event()

    class Told(_Noting):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def stage(self, position: int, name: str) -> None:
            if name == "predict":
                order.append(self.name)
                # The first shard's network waits until the second shard has begun to load.
                assert self.name == "second" or second_loads.wait(20)
            elif self.name == "second":
                second_loads.set()

    with ThreadPoolExecutor(2) as pool:
        halves = {"first": manifest[:4], "second": manifest[4:]}
        running = []
        for name, half in halves.items():
            running.append(pool.submit(segmenter.segment, half, Told(name)))
            while not order:
                assert not running[0].done(), running[0].exception()
    tables = [shard.result().table.drop(["seconds"]) for shard in running]
    assert order == ["first"] * 4 + ["second"] * 4
    assert tables[0].equals(expected[0]) and tables[1].equals(expected[1])


def test_an_error_gives_the_turn_back(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = Segmenter(narrow_network(), config_of(inputs), "run", STORAGE)
    manifest = list(build_manifest(STORAGE, f"{inputs.root}/images").rows())
    with monkeypatch.context() as broken:
        broken.setattr(module, "score_maps", lambda *_, **__: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            segmenter.segment(manifest)
    assert segmenter.segment(manifest).table.num_rows == len(manifest)


def test_a_careful_attempt_is_at_one_stage_of_one_image(inputs: Inputs) -> None:
    """The last event tells what the process was doing when it died."""
    observer = _Noting(overlapping=False)
    manifest = list(build_manifest(STORAGE, f"{inputs.root}/images", f"{inputs.root}/labels").rows())
    Segmenter(narrow_network(), config_of(inputs), "run", STORAGE).segment(manifest, observer)
    stages = ("fetch", "decode", "label", "predict")
    assert observer.stages == [(position, stage) for position in range(5) for stage in stages]


def test_a_quarantined_image_is_not_touched(inputs: Inputs) -> None:
    observer = _Noting(quarantined={1: "decode"})
    manifest = list(build_manifest(STORAGE, f"{inputs.root}/images", f"{inputs.root}/labels").rows())
    segmenter = Segmenter(narrow_network(), config_of(inputs), "run", STORAGE)
    rows = segmenter.segment(manifest, observer).table.to_pylist()
    assert 1 not in {position for position, _ in observer.stages}
    assert (rows[1]["status"], rows[1]["error_stage"], rows[1]["error_type"]) == ("error", "decode", "ProcessDied")
    whole = segmenter.segment(manifest).table.drop_columns(["seconds"]).to_pylist()
    for row in rows:
        row.pop("seconds")
    assert rows[:1] + rows[2:] == whole[:1] + whole[2:]
