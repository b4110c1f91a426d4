"""Runs that a bucket's images were segmented in before, for `--since`: what need not be segmented again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.data.manifest_table import ManifestTable
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, RunConflict
from pipeline.results.tables import Run
from pipeline.segmentation.config import setting_differences

__all__ = ["EarlierRuns", "earlier_runs"]

_CHANGE = ("image_uri", "change")
_INPUT = ("image_uri", "label_uri", "size", "version")
# Changes the names of files, but no pixel and no number.
_FREE = frozenset({"shard_images"})


@dataclass(frozen=True)
class EarlierRuns:
    """A committed run, and those that it was made since itself.

    Attributes:
        runs: the oldest first.
    """

    runs: tuple[Run, ...]

    @property
    def last(self) -> Run:
        """The one that was asked for."""
        return self.runs[-1]

    @property
    def outputs(self) -> list[str]:
        """Where they lie."""
        return [run.output for run in self.runs]

    def recall(self, table: ManifestTable) -> None:
        """Adds the inputs of all of them; of an image that several have, the newest run's counts."""
        for run in self.runs:
            table.forget(row["image_uri"] for row in _rows(run, "changes/", _CHANGE) if row["change"] == "gone")
            table.add_known(tuple(row.values()) for row in _rows(run, "manifest/", _INPUT))

    def refuse_others(self, ingredients: Mapping[str, Any]) -> None:
        """Compares the network and the settings with those of a new run.

        Raises:
            RunConflict: if they differ, so that rows of the runs would not go together; the message says in what.
        """
        theirs = self.last.info()["ingredients"]
        differences = []
        if theirs["checkpoint"] != ingredients["checkpoint"]:
            differences.append(f"its checkpoint was {self.last.info()['checkpoint']['uri']}, with other bytes")
        before, now = (
            {name: value for name, value in settings.items() if name not in _FREE}
            for settings in (theirs["settings"], ingredients["settings"])
        )
        differences += setting_differences(before, now)
        if differences:
            raise RunConflict(
                f"--since {self.last.output} is another kind of run: {'; '.join(differences)}. Repeat its network and "
                "settings, or segment all images without --since"
            )


def earlier_runs(storage: Storage, output: str) -> EarlierRuns:
    """Opens the run at `output` and all that it says it was made since.

    Raises:
        IncompleteRun: if one of them is not committed.
        ConfigError: if they go round in a circle.
    """
    runs = [Run(output, storage)]
    while (since := runs[0].success.get("since")) is not None:
        if since["output"] in {run.output for run in runs}:
            raise ConfigError(f"{runs[0].output} says that it was made since {since['output']}, which says the same")
        runs.insert(0, Run(since["output"], storage))
    return EarlierRuns(tuple(runs))


def _rows(run: Run, folder: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for table in run.tables(folder, columns):
        yield from table.select(columns).to_pylist()
