"""A look at images and labels before training: classes, sizes, pairs that do not fit, images in two splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.data.label_spaces import Color, LabelSpace
from pipeline.errors import ConfigError
from pipeline.training.samples.sources import Images, evenly_spread

__all__ = ["ClassCount", "SplitSurvey", "Survey", "survey_data"]

_MOST = 2000  # pairs of a split that are read: more would take longer than the look is worth
_THREADS = 4
_MOST_NAMED = 3
_RARE = 0.001  # share of pixels below which a class may be too rare to be learned


@dataclass(frozen=True)
class SplitSurvey:
    """Findings in the images and labels of a split.

    Attributes:
        total: Number of pairs in the split.
        read: Number of pairs that were read, evenly spread.
        pixels: (C,) labeled pixels of each class.
        images: (C,) images that show each class.
        sizes: Number of images by (height, width), pixels.
        problems: Reason by image URI, for pairs that cannot be trained on.
        ignored: URIs of labels without a pixel of any class.
        contents: Image URI by digest of the decoded pixels.
    """

    total: int
    read: int
    pixels: NDArray[np.int64]
    images: NDArray[np.int64]
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassCount:
    """One class in the training split and in the validation split.

    Attributes:
        name: Class name.
        color: RGB color.
        pixels: Labeled pixels in the training images that were read.
        share: Share of all labeled training pixels, 0–1.
        images: Training images that show it.
        val_images: Validation images that show it.
    """

    name: str
    color: Color
    pixels: int
    share: float
    images: int
    val_images: int


@dataclass(frozen=True)
class Survey:
    """Findings in the data of a run: classes, sizes and problems.

    Attributes:
        classes: Classes, the rarest first.
        splits: Survey of each split, by name.
        duplicates: Pairs of image URIs with the same pixels, one in train and one in val.
        notes: Sentences about what was left out or passed over.
    """

    classes: Sequence[ClassCount]
    splits: dict[str, SplitSurvey]
    duplicates: Sequence[tuple[str, str]]
    notes: Sequence[str]

    @property
    def problems(self) -> dict[str, str]:
        """Reason by image URI, for pairs that cannot be trained on."""
        return {uri: reason for split in self.splits.values() for uri, reason in split.problems.items()}

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for everything that deserves a look."""
        yield from self.notes
        for name, split in self.splits.items():
            if split.read < split.total:
                yield f"only {split.read:,} of {split.total:,} pairs of {name} were read, evenly spread"
            if split.problems:
                first = next(iter(split.problems.values()))
                yield f"training cannot use {len(split.problems)} pairs of {name}: {first}"
            if split.ignored:
                yield f"{len(split.ignored)} labels of {name} have no pixel of any class: {_some(split.ignored)}"
        if self.duplicates:
            shown = _some([f"{train} = {val}" for train, val in self.duplicates])
            yield f"{len(self.duplicates)} images are in both train and val, so scores will be too high: {shown}"
        for each in self.classes:
            if each.images == 0:
                yield f"class {each.name} is in no training label"
            elif each.val_images == 0:
                yield f"class {each.name} is in no validation label, so it gets no validation score"
            elif each.share < _RARE:
                yield f"class {each.name} has only {100 * each.share:.3f}% of the training pixels"

    def table(self) -> str:
        """Return a table of the classes as text."""
        width = max(len("class"), *(len(each.name) for each in self.classes))
        lines = [f"{'class':<{width}}  {'pixels':>14}  {'share':>8}  {'in train':>8}  {'in val':>8}"]
        for each in self.classes:
            lines.append(
                f"{each.name:<{width}}  {each.pixels:>14,}  {100 * each.share:>7.2f}%  {each.images:>8,}  "
                f"{each.val_images:>8,}"
            )
        return "\n".join(lines)

    def sizes(self) -> str:
        """Return a sentence about the images' sizes."""
        sizes = sum((split.sizes for split in self.splits.values()), Counter[tuple[int, int]]())
        if not sizes:
            return "no image could be read"
        ordered = sorted(sizes, key=lambda size: size[0] * size[1])
        common, count = sizes.most_common(1)[0]
        if len(sizes) == 1:
            return f"all images have {_size(common)} pixels (height×width)"
        return (
            f"images have {len(sizes)} sizes from {_size(ordered[0])} to {_size(ordered[-1])} pixels (height×width); "
            f"{count:,} of {sum(sizes.values()):,} have {_size(common)}"
        )


def survey_data(train: Images, val: Images, space: LabelSpace, ignore_label: int, notes: Iterable[str] = ()) -> Survey:
    """Read the images and labels of both splits, at most 2,000 pairs of each.

    Args:
        train: Training images at their own size.
        val: Validation images at their own size.
        space: Classes of the labels.
        ignore_label: Class id of pixels that count nowhere.
        notes: Sentences about what was left out, to be repeated.
    """
    splits = {name: _look(images, space, ignore_label) for name, images in (("train", train), ("val", val))}
    in_train = splits["train"]
    in_val = splits["val"]
    total = max(1, int(in_train.pixels.sum()))
    order = np.argsort(in_train.pixels, kind="stable").tolist()
    classes = [
        ClassCount(
            name=space.classes[number],
            color=space.palette[number],
            pixels=int(in_train.pixels[number]),
            share=int(in_train.pixels[number]) / total,
            images=int(in_train.images[number]),
            val_images=int(in_val.images[number]),
        )
        for number in order
    ]
    shared = in_train.contents.keys() & in_val.contents.keys()
    duplicates = sorted((in_train.contents[digest], in_val.contents[digest]) for digest in shared)
    return Survey(classes, splits, duplicates, list(notes))


def _look(images: Images, space: LabelSpace, ignore_label: int) -> SplitSurvey:
    chosen = evenly_spread(len(images), min(_MOST, len(images)))
    classes = len(space.classes)
    found = SplitSurvey(len(images), len(chosen), np.zeros(classes, np.int64), np.zeros(classes, np.int64))

    def read(index: int) -> tuple[tuple[int, int], NDArray[np.int64], str] | str:
        try:
            image, label = images.pair(index)
        except ConfigError as error:
            return str(error)
        counts = np.bincount(label[label != ignore_label], minlength=classes).astype(np.int64)
        return (label.shape[0], label.shape[1]), counts, hashlib.sha256(image.tobytes()).hexdigest()

    with ThreadPoolExecutor(_THREADS) as pool:
        for index, seen in zip(chosen, pool.map(read, chosen), strict=True):
            pair = images.pairs[index]
            if isinstance(seen, str):
                found.problems[pair.image_uri] = seen
                continue
            size, counts, digest = seen
            found.sizes[size] += 1
            found.pixels[:] += counts
            found.images[:] += counts > 0
            found.contents.setdefault(digest, pair.image_uri)
            if not counts.any():
                found.ignored.append(pair.label_uri)
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
