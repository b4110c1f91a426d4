"""Active learning on drawn scenes: the most uncertain images of a pool compared with random ones, round by round.

    python -m benchmarks.active_learning --folder bench-output/active --seeds 3 --rounds 3 --start 20 --per-round 10

For each seed, a network is trained on the labeled images of a first data set. In each round, the newest network
segments the unlabeled pool, and images are exported as tasks for Label Studio. A simulated annotator corrects them,
since the true labels of drawn scenes are known. The painted labels become one more data set, and training continues on
all of them. Both strategies of a seed share the first network, the pool, and the number of steps. All networks are
evaluated on the same scenes. Finished rounds stay in the folder, and a later call does not repeat them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from benchmarks.annotation_rounds import (
    Encode,
    choose_and_annotate,
    draw_scenes,
    judge_network,
    train_network,
    write_classes,
)
from benchmarks.probe import write_results
from demo.street.scene import encode_scene
from pipeline.data.filesystems import normalise
from pipeline.data.storage import Storage, join
from pipeline.training.recipes.schema import DERIVE

__all__ = ["STRATEGIES", "Comparison", "Row", "Settings", "summarize"]

STRATEGIES = ("uncertain", "random")
_SHARED = "start"  # strategy name of round 0 in the results; both strategies continue from its network
# First seed of each set of scenes. The ranges are disjoint, and no scene of them is in the demo.
_JUDGE = 300_000
_FIRST = 400_000
_STRIDE = 10_000
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Settings shared by all seeds, strategies and rounds.

    Attributes:
        start: Number of labeled images in the first data set.
        per_round: Number of images that the annotator labels in a round.
        pool: Number of unlabeled images before the first round.
        judge: Number of images on which all networks are evaluated.
        iterations: Optimizer steps of the first training, and of each later one.
        scale: Widths of the network as a share of VGG-16's; -1: those of the recipe `custom`.
    """

    start: int = 20
    per_round: int = 10
    pool: int = 200
    judge: int = 60
    iterations: tuple[int, int] = (300, 100)
    scale: float = DERIVE


@dataclass(frozen=True)
class Comparison:
    """Comparison in one folder; each method skips what an earlier call finished.

    Attributes:
        settings: Sizes and numbers of steps.
        folder: Absolute URI for scenes, runs and results.
        encode: Function that returns the JPEG and the label PNG of a scene's seed.
    """

    settings: Settings
    folder: str
    encode: Encode = encode_scene

    def refuse_other_settings(self) -> None:
        """Raise ValueError if the folder holds a comparison with other settings."""
        storage = Storage()
        uri = join(self.folder, "settings.json")
        content = json.dumps(asdict(self.settings)).encode()
        if not storage.write_once(uri, content) and storage.read(uri) != content:
            raise ValueError(f"{uri} holds other settings, {storage.read(uri).decode()}: choose another --folder")

    def draw_judge(self) -> None:
        """Draw the scenes on which all networks are evaluated."""
        scenes = join(self.folder, "judge")
        numbers = range(_JUDGE, _JUDGE + self.settings.judge)
        draw_scenes(join(scenes, "images"), join(scenes, "labels"), numbers, self.encode, Storage())

    def draw_seed(self, seed: int) -> None:
        """Draw the first data set and the pool of a seed; the true labels of the pool lie in a separate folder."""
        storage = Storage()
        root = self._root(seed)
        first = _FIRST + _STRIDE * seed
        start = range(first, first + self.settings.start)
        draw_scenes(join(root, "start", "images"), join(root, "start", "labels"), start, self.encode, storage)
        write_classes(join(root, "start"), storage)
        pool = range(start.stop, start.stop + self.settings.pool)
        draw_scenes(join(root, "pool"), join(root, "truth"), pool, self.encode, storage)
        print(f"seed {seed}  {len(start)} + {len(pool)} scenes drawn", flush=True)

    def start(self, seed: int) -> Row:
        """Return the result of round 0: a network trained on the first data set alone."""
        output = join(self._root(seed), "round-0")
        return _finished(output) or self._train_and_judge(seed, _SHARED, 0, output, [], None, time.perf_counter())

    def play(self, seed: int, strategy: str, rounds: int) -> list[Row]:
        """Return the results of all rounds of a strategy; needs the network that `start` trained."""
        storage = Storage()
        root = self._root(seed)
        pool = {info.uri for info in storage.list(join(root, "pool"))}
        previous = join(root, "round-0")
        painted: list[str] = []
        rows = []
        for number in range(1, rounds + 1):
            output = join(root, strategy, f"round-{number}")
            network = join(previous, "training")
            painted.append(join(output, "data"))
            row = _finished(output)
            if row is None:
                started = time.perf_counter()
                candidates = self._candidates(sorted(pool), seed, strategy, number)
                choose_and_annotate(candidates, self.settings.per_round, network, root, output, storage)
                row = self._train_and_judge(seed, strategy, number, output, painted, network, started)
            rows.append(row)
            # Annotated images leave the pool.
            pool -= {join(root, "pool", f"{name}.jpg") for name in row["annotated"]}
            previous = output
        return rows

    def _root(self, seed: int) -> str:
        return join(self.folder, f"seed-{seed}")

    def _candidates(self, pool: Sequence[str], seed: int, strategy: str, number: int) -> list[str]:
        """Return the whole pool for the strategy `uncertain`, or `per_round` random images of it for `random`."""
        if strategy == "uncertain":
            return list(pool)
        rng = np.random.default_rng((seed, number))
        return [str(uri) for uri in rng.choice(pool, self.settings.per_round, replace=False)]

    def _train_and_judge(
        self,
        seed: int,
        strategy: str,
        number: int,
        output: str,
        painted: Sequence[str],
        weights: str | None,
        started: float,
    ) -> Row:
        """Train on the first data set and the painted ones, evaluate the network, and write and return the result."""
        storage = Storage()
        training = join(output, "training")
        data = [join(self._root(seed), "start"), *painted]
        images = train_network(
            data,
            training,
            # A different seed in every round, so that the samples differ; the same one for both strategies.
            seed=100 * seed + number,
            weights=weights,
            iterations=self.settings.iterations[0 if weights is None else 1],
            scale=self.settings.scale,
            storage=storage,
        )
        row = {
            "seed": seed,
            "strategy": strategy,
            "round": number,
            "labeled_images": self.settings.start + number * self.settings.per_round,
            "trained_on": images,
            **judge_network(training, join(self.folder, "judge"), join(output, "judge"), storage),
            "annotated": _stems(storage, join(painted[-1], "labels")) if painted else [],
            "seconds": round(time.perf_counter() - started, 1),
        }
        storage.write(join(output, "result.json"), json.dumps(row).encode())
        print(f"seed {seed}  {strategy:<9}  round {number}  mean IoU {100 * row['mean_iou']:.2f}", flush=True)
        return row


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Return scores by round over all seeds, for each strategy and for the paired difference of the two."""
    scores = {(row["strategy"], row["round"], row["seed"]): row["mean_iou"] for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    rounds = sorted({row["round"] for row in rows} - {0})
    first = _spread(0, [scores[_SHARED, 0, seed] for seed in seeds])
    mean_iou = {
        strategy: [first, *(_spread(number, [scores[strategy, number, seed] for seed in seeds]) for number in rounds)]
        for strategy in STRATEGIES
    }
    difference = [
        _spread(number, [scores["uncertain", number, seed] - scores["random", number, seed] for seed in seeds])
        for number in rounds
    ]
    return {"mean_iou": mean_iou, "uncertain_minus_random": difference}


def main() -> None:
    """Run the comparison, print its summary, and write active_learning.json."""
    options = _parse()
    settings = Settings(options.start, options.per_round, options.pool, options.judge, tuple(options.iterations))
    comparison = Comparison(settings, normalise(options.folder))
    try:
        comparison.refuse_other_settings()
    except ValueError as error:
        sys.exit(f"error: {error}")
    seeds = range(options.seeds)
    # Spawn the processes: a fork would copy locks that the storage's threads hold.
    context = get_context("spawn")
    with ProcessPoolExecutor(options.processes, context, torch.set_num_threads, (options.threads,)) as pool:
        drawn = [pool.submit(comparison.draw_seed, seed) for seed in seeds]
        pool.submit(comparison.draw_judge).result()
        for each in drawn:
            each.result()
        rows = list(pool.map(comparison.start, seeds))
        plays = [pool.submit(comparison.play, *play, options.rounds) for play in product(seeds, STRATEGIES)]
        rows += [row for played in plays for row in played.result()]
    summary = summarize(rows)
    content = {
        "settings": {"recipe": "custom", **asdict(settings), "seeds": options.seeds, "rounds": options.rounds},
        "processes": options.processes,
        "threads_of_each": options.threads,
        "process_seconds": round(sum(row["seconds"] for row in rows)),
        **summary,
        "all": rows,
    }
    write_results("active_learning", content)
    for name, spreads in {**summary["mean_iou"], "difference": summary["uncertain_minus_random"]}.items():
        for each in spreads:
            print(f"{name:<10}  round {each['round']}  {100 * each['mean']:6.2f} ± {100 * (each['std'] or 0):.2f}")


def _spread(number: int, values: Sequence[float]) -> dict[str, Any]:
    """Return a round's values by seed, their mean, and their sample standard deviation (None for one seed)."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"round": number, "mean": statistics.mean(values), "std": std, "by_seed": list(values)}


def _finished(output: str) -> Row | None:
    """Return the result that an earlier call left, or None."""
    storage = Storage()
    uri = join(output, "result.json")
    return json.loads(storage.read(uri)) if storage.exists(uri) else None


def _stems(storage: Storage, folder: str) -> list[str]:
    """Return the sorted names of the label files in a folder, without extension."""
    return sorted(info.uri.rsplit("/", 1)[-1].removesuffix(".png") for info in storage.list(folder))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Settings()
    parser.add_argument(
        "--folder", default="bench-output/active_learning", help="URI for scenes, runs and results of rounds"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions with other scenes")
    parser.add_argument("--rounds", type=int, default=3, help="number of annotation rounds")
    parser.add_argument("--start", type=int, default=default.start, help="labeled images before the first round")
    parser.add_argument("--per-round", type=int, default=default.per_round, help="images that a round annotates")
    parser.add_argument("--pool", type=int, default=default.pool, help="unlabeled images before the first round")
    parser.add_argument("--judge", type=int, default=default.judge, help="images on which networks are judged")
    parser.add_argument(
        "--iterations",
        type=int,
        nargs=2,
        default=default.iterations,
        metavar=("FIRST", "LATER"),
        help="optimizer steps of the first training and of each later one",
    )
    parser.add_argument("--processes", type=int, default=2, help="trainings at the same time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    options = parser.parse_args()
    if options.rounds * options.per_round > options.pool:
        parser.error(f"{options.rounds} rounds of {options.per_round} images need a larger --pool than {options.pool}")
    return options


if __name__ == "__main__":
    main()
