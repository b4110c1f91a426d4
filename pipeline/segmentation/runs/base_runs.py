"""Earlier runs over a bucket's images, for `--since`: their unchanged images need not be segmented again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.data.manifest_table import ManifestTable
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, RunConflict
from pipeline.results.tables import Run
from pipeline.segmentation.config import setting_differences

__all__ = ["BaseRuns", "earlier_runs"]

_CHANGE = ("image_uri", "change")
_INPUT = ("image_uri", "label_uri", "size", "version")
# Settings that change the names of files, but no pixel and no number.
_FREE = frozenset({"shard_images"})


@dataclass(frozen=True)
class BaseRuns:
    """Committed run and the chain of earlier runs on which it builds through its own `--since`.

    Attributes:
        runs: Runs of the chain, the oldest first.
    """

    runs: tuple[Run, ...]

    @property
    def last(self) -> Run:
        """Return the run that `--since` names, the newest of the chain."""
        return self.runs[-1]

    @property
    def outputs(self) -> list[str]:
        """Return the URIs of the runs, the oldest first."""
        return [run.output for run in self.runs]

    def known_inputs(self, table: ManifestTable) -> None:
        """Add the inputs of all runs to `table` as known; of an image in several runs, the newest run's row counts."""
        # Oldest first: a newer run first removes the images that were gone, then replaces inputs that changed.
        for run in self.runs:
            table.forget(row["image_uri"] for row in _rows(run, "changes/", _CHANGE) if row["change"] == "gone")
            table.add_known(tuple(row.values()) for row in _rows(run, "manifest/", _INPUT))

    def check_compatible(self, ingredients: Mapping[str, Any]) -> None:
        """Check that a new run has the network and the settings of these runs.

        Args:
            ingredients: Ingredients of the new run's identity; `checkpoint` and `settings` are compared.

        Raises:
            RunConflict: If they differ, so that rows of the runs cannot be combined; the message lists the differences.
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


def earlier_runs(storage: Storage, output: str) -> BaseRuns:
    """Open the run at `output` and the chain of earlier runs on which it builds.

    Args:
        storage: Storage of the runs.
        output: URI of the newest run.

    Raises:
        IncompleteRun: If one of the runs is not committed.
        ConfigError: If the chain is a circle.
    """
    runs = [Run(output, storage)]
    while (since := runs[0].success.get("since")) is not None:
        if since["output"] in {run.output for run in runs}:
            raise ConfigError(f"{runs[0].output} says that it was made since {since['output']}, which says the same")
        runs.insert(0, Run(since["output"], storage))
    return BaseRuns(tuple(runs))


def _rows(run: Run, folder: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the tables below `folder`, with the columns in this order."""
    for table in run.tables(folder, columns):
        yield from table.select(columns).to_pylist()
