"""Plan of a run: its identity, its frozen manifest, its shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from model.errors import CheckpointError
from model.networks.network import NetworkSpec
from model.prediction.views import PLAIN
from pipeline.data.manifest import build_manifest
from pipeline.data.manifest_table import Manifest, ManifestTable
from pipeline.data.storage import Storage
from pipeline.errors import (
    ConfigError,
    ObjectMissing,
    RunConflict,
    StorageError,
    StorageUnavailable,
)
from pipeline.results.schema.schemas import TABLE_FORMAT
from pipeline.results.tables import Run
from pipeline.segmentation.config import (
    SegmentConfig,
    labels_of,
    network_of,
    setting_differences,
    window_settings,
)
from pipeline.segmentation.runs.input_checks import check_inputs
from pipeline.segmentation.runs.shards import FrozenFile, frozen_files

__all__ = ["BaseRuns", "Plan", "earlier_runs", "make_plan"]

_CHANGE = ("image_uri", "change")
_INPUT = ("image_uri", "label_uri", "size", "version", "label_version")
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

    def known_inputs(self, table: ManifestTable, *, retry_errors: bool = False) -> None:
        """Add the inputs of all runs to `table` as known; of an image in several runs, the newest run's row counts.

        Args:
            table: Table of the inputs of the new run.
            retry_errors: Whether inputs whose row is an error are marked as failed.
        """
        # Oldest first: a newer run first removes the images that were gone, then replaces inputs that changed.
        for run in self.runs:
            table.forget(row["image_uri"] for row in _rows(run, "changes/", _CHANGE) if row["change"] == "gone")
            table.add_known(tuple(row.values()) for row in _rows(run, "manifest/", _INPUT))
            if retry_errors:
                table.mark_failed(row["image_uri"] for row in _rows(run, "errors.parquet", ("image_uri",)))

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


def _rows(run: Run, path: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the tables at or below `path`, with the columns in this order; an absent column is null."""
    for table in run.tables(path, columns):
        # Runs of version 0.2.0 and older have no `label_version`.
        for name in set(columns) - set(table.column_names):
            table = table.append_column(name, pa.nulls(table.num_rows))
        yield from table.select(columns).to_pylist()


@dataclass(frozen=True)
class Plan:
    """Plan of one run; two submissions with equal identities are the same run and leave the same files.

    Attributes:
        config: Configuration of the submission.
        spec: Description of the network (classes, palette, …).
        manifest: Inputs of the run, one row each, sorted by URI.
        ingredients: Values whose digest is the identity.
        since: Output and run_id of the earlier run whose images are left out, and the numbers of images by kind of
            change; None without an earlier run.
    """

    config: SegmentConfig
    spec: NetworkSpec
    manifest: Manifest
    ingredients: Mapping[str, Any]
    since: Mapping[str, Any] | None = None

    @property
    def identity(self) -> str:
        """Return the SHA-256 of the ingredients, as 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.ingredients, sort_keys=True).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """Return the first 16 digits of the identity."""
        return self.identity[:16]

    @property
    def shards(self) -> int:
        """Return the number of shards, and so of parts, of the run."""
        return -(-self.manifest.num_rows // self.config.shard_images)

    def frozen_files(self) -> list[FrozenFile]:
        """Return the files that precede the first part: the manifest, and with `--since` the changes."""
        files = frozen_files(self.manifest, "manifest", self.config.shard_images)
        if self.manifest.changes is not None:
            files += frozen_files(self.manifest.changes.table, "changes", self.config.shard_images)
        return files

    def shard_slice(self, shard: int) -> pa.Table:
        """Return the manifest rows of a shard."""
        return self.manifest.slice(shard * self.config.shard_images, self.config.shard_images)


def make_plan(config: SegmentConfig, storage: Storage) -> Plan:
    """Plan a run: read the checkpoint, list the inputs, and refuse what cannot work; nothing is written.

    Args:
        config: Configuration of the submission.
        storage: Storage of the checkpoint, the inputs and the earlier runs.

    Raises:
        ConfigError: If a value cannot work, or there is no input; the message names the value and the remedy.
        IncompleteRun: If the run that `--since` names is not committed.
        RunConflict: If that run has another network or other settings.
        StorageUnavailable: If storage does not answer.
    """
    for name in ("relabeled", "retry_errors"):
        if getattr(config, name) and config.since is None:
            raise ConfigError(f"--{name.replace('_', '-')} compares with an earlier run: add --since URI, or drop it")
    # An outage passes through, because it is no fault of the configuration; all other storage errors are one.
    try:
        checkpoint = storage.read(config.checkpoint)
        spec, windows = _spec_and_windows(config, checkpoint)
        ingredients = {
            "checkpoint": hashlib.sha256(checkpoint).hexdigest(),
            "settings": config.identity_settings() | windows,
            "format": TABLE_FORMAT,
        }
        earlier = None if config.since is None else _earlier(storage, config.since, ingredients)
        manifest = _manifest(config, storage, earlier)
    except ObjectMissing as error:
        raise ConfigError(f"{error}: give the URI of an existing object") from error
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise ConfigError(str(error)) from error
    except CheckpointError as error:
        raise ConfigError(f"{config.checkpoint} is not a usable checkpoint: {error}") from error
    _check_settings(config, spec)
    check_inputs(config, spec, manifest, storage)
    ingredients["manifest"] = manifest.digest()
    if earlier is None or manifest.changes is None:
        return Plan(config, spec, manifest, ingredients)
    ingredients |= {"since": earlier.last.success["identity"], "changes": manifest.changes.table.digest()}
    since = {"output": earlier.last.output, "run_id": earlier.last.success["run_id"], **manifest.changes.counts()}
    return Plan(config, spec, manifest, ingredients, since)


def _earlier(storage: Storage, since: str, ingredients: Mapping[str, Any]) -> BaseRuns:
    """Return the run at `since` and its chain, after a check of its network and settings."""
    earlier = earlier_runs(storage, since)
    earlier.check_compatible(ingredients)
    return earlier


def _spec_and_windows(config: SegmentConfig, checkpoint: bytes) -> tuple[NetworkSpec, dict[str, Any]]:
    """Return the network's specification and the settings of its windows; the weights are not kept."""
    network = network_of(config, checkpoint)
    return network.spec, window_settings(config, network)


def _manifest(config: SegmentConfig, storage: Storage, earlier: BaseRuns | None) -> Manifest:
    # Outputs may lie among the images, but their files are no inputs.
    leave_out = [config.output]
    known_inputs = None
    if earlier is not None:
        leave_out = [config.output, *earlier.outputs]
        known_inputs = partial(earlier.known_inputs, retry_errors=config.retry_errors)
    return build_manifest(
        storage, config.images, config.labels, config.limit, leave_out, known_inputs, relabeled=config.relabeled
    )


def _check_settings(config: SegmentConfig, spec: NetworkSpec) -> None:
    """Raise ConfigError for settings that contradict each other or the checkpoint."""
    if config.geometry == "reference" and spec.reference_window is None:
        raise ConfigError("the checkpoint names no reference_window: use --geometry image")
    if config.geometry == "reference" and config.views(spec.resize) != PLAIN:
        raise ConfigError(
            "--flip and --scales, and a checkpoint's working size, are for views of whole images: use --geometry image"
        )
    if config.label_space is None:
        return
    if config.labels is None and not config.images.endswith((".parquet", ".csv", ".jsonl", ".ndjson")):
        raise ConfigError(f"--label-space {config.label_space} has no effect without labels: give --labels or drop it")
    space = labels_of(config, spec)
    if len(space.classes) != len(spec.classes):
        raise ConfigError(
            f"label space {space.name} has {len(space.classes)} classes, the checkpoint {len(spec.classes)}: "
            "choose the label space that the network was trained with"
        )
