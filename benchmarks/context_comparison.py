"""Controlled comparison of the paper (Table 3) on any data set: the effect of the context module on a front end.

    python -m benchmarks.context_comparison street_scenes --scenes 120 36 --output out/comparison --seeds 0 1 2

For each seed one front end is trained. These variants start from it, each with the same data and the recipe's budget:
the basic and the large context module on its score maps; the basic module from random instead of identity weights;
front end and basic module jointly; and, as a control, the front end alone for as long as the joint stage. The benchmark
trains in this process, without Ray, and resumes where an earlier call was interrupted.
"""

from __future__ import annotations

import argparse
import json
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.scenes import draw_scenes
from pipeline.data.storage import Storage, join
from pipeline.training.config import TrainConfig
from pipeline.training.engine.trainer import NETWORK_FILE, Hooks
from pipeline.training.recipes.registry import recipe
from pipeline.training.recipes.schema import Recipe, StageConfig
from pipeline.training.runs.run import train_here

VARIANTS = ("front_end", "basic", "large", "random", "joint", "front_end_longer")
_NONE = StageConfig()


def main() -> None:
    """Run the comparison, write comparison.json, and print the mean IoU of each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="name of a recipe with the stages front_end, context and joint")
    parser.add_argument("--output", required=True, help="URI for the runs and comparison.json")
    parser.add_argument("--data", help="URI of the data set; default: scenes are drawn into the output")
    parser.add_argument("--maps", help="URI of cached maps that the runs share; default: in the output")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--scenes", type=int, nargs=2, default=(120, 36), metavar=("TRAIN", "VAL"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], metavar="PATH=JSON", help="recipe overrides: joint.crop=612")
    parser.add_argument("--processes", type=int, default=2, help="seeds at the same time")
    options = parser.parse_args()
    data = options.data or draw_scenes(join(options.output, "scenes"), train=options.scenes[0], val=options.scenes[1])
    chosen = overridden(recipe(options.recipe), options.set)
    with ProcessPoolExecutor(options.processes) as pool:
        maps = options.maps or join(options.output, "maps")
        jobs = [
            pool.submit(compare, chosen, data, options.output, maps, seed, options.threads) for seed in options.seeds
        ]
        scores = [job.result() for job in jobs]
    table = {name: [score[name]["mean_iou"] for score in scores] for name in VARIANTS}
    content = {"recipe": chosen.model_dump(mode="json"), "seeds": options.seeds, "mean_iou": table, "all": scores}
    Storage().write(join(options.output, "comparison.json"), json.dumps(content, indent=1).encode())
    for name, values in table.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        single = "  ".join(f"{100 * value:.2f}" for value in values)
        print(f"{name:<18}{100 * statistics.mean(values):7.2f} ± {100 * spread:.2f}   ({single})")


def compare(base: Recipe, data: str, output: str, maps: str, seed: int, threads: int = 1) -> dict[str, Any]:
    """Train all variants of one seed, one after another, and return the validation scores of each one's last stage."""
    torch.set_num_threads(threads)
    base = base.model_copy(update={"seed": seed})
    scores = {}
    for name in VARIANTS:
        variant = _variant(base, name, lambda other: join(output, f"{other}-{seed}", NETWORK_FILE))
        metrics = _train(TrainConfig(data=(data,), output=join(output, f"{name}-{seed}"), maps=maps, recipe=variant))
        scores[name] = list(metrics.values())[-1]
        print(f"seed {seed}  {name:<18}{100 * scores[name]['mean_iou']:.2f}", flush=True)
    return scores


def _variant(base: Recipe, name: str, network_of: Any) -> Recipe:
    """Return the recipe of a variant: the stages that it trains, and the weights that it starts from."""
    # The variant whose network this one starts from; all but two start from the front end.
    before = {"front_end": None, "joint": "basic"}.get(name, "front_end")
    stages = {
        "front_end": {"front_end": base.front_end},
        "joint": {"joint": base.joint},
        "front_end_longer": {"fine_tune": base.joint},
    }.get(name, {"context": base.context.model_copy(update={"dropout": 0.0})})
    network: dict[str, Any] = {"weights": network_of(before)} if before else {}
    network |= {"large": {"context": "large"}, "random": {"context_init": "random"}}.get(name, {})
    everything: dict[str, Any] = {"front_end": _NONE, "fine_tune": _NONE, "context": _NONE, "joint": _NONE, **stages}
    everything |= {"network": base.network.model_copy(update=network), "name": f"{base.name} {name}"}
    return base.model_copy(update=everything)


def _train(config: TrainConfig) -> dict[str, Any]:
    """Train in this process, and return the content of metrics.json."""
    storage = Storage()
    output = config.output
    log = Path(output) / "log.txt" if "://" not in output else None
    train_here(config, storage, Hooks(log=lambda line: _note(log, line)))
    metrics: dict[str, Any] = json.loads(storage.read(join(output, "metrics.json")))
    return metrics


def _note(log: Path | None, line: str) -> None:
    """Append a line to the log file, unless there is none."""
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(line + "\n")


def overridden(chosen: Recipe, settings: list[str]) -> Recipe:
    """Return a copy of the recipe with settings of the form `path=JSON` applied."""
    tree = chosen.model_dump()
    for setting in settings:
        path, _, value = setting.partition("=")
        *parents, leaf = path.split(".")
        branch = tree
        for parent in parents:
            branch = branch[parent]
        branch[leaf] = json.loads(value)
    return Recipe.model_validate(tree)


if __name__ == "__main__":
    main()
