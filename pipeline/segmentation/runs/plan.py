"""Plan of a run: its identity, its frozen manifest, its shards."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from model.dilated.network import NetworkSpec
from model.errors import CheckpointError
from model.files.checkpoint import from_bytes
from model.prediction.views import PLAIN
from pipeline.data.labels import decode_label
from pipeline.data.manifest import build_manifest
from pipeline.data.manifest_table import Manifest
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, DecodeError, ObjectMissing, StorageError, StorageUnavailable, UnknownClasses
from pipeline.results.schema.schemas import TABLE_FORMAT
from pipeline.segmentation.config import SegmentConfig, labels_of
from pipeline.segmentation.runs.base_runs import BaseRuns, earlier_runs
from pipeline.segmentation.runs.shards import FrozenFile, frozen_files

__all__ = ["Plan", "make_plan"]

# Labels that are decoded before the run starts.
_LOOKED_AT = 4


@dataclass(frozen=True)
class Plan:
    """Plan of one run; two submissions with equal identities are the same run and leave the same files.

    Attributes:
        config: Configuration of the submission.
        spec: Description of the network (classes, palette, …).
        manifest: Inputs of the run, one row each, sorted by URI.
        ingredients: Values whose digest is the identity.
        since: Output and run_id of the earlier run whose images are left out, and the numbers of new, changed,
            unchanged and gone images; None without an earlier run.
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
        ConfigError: If a value cannot work; the message names the value and the remedy.
        IncompleteRun: If the run that `--since` names is not committed.
        RunConflict: If that run has another network or other settings.
        StorageUnavailable: If storage does not answer.
    """
    # An outage passes through, because it is no fault of the configuration; all other storage errors are one.
    try:
        checkpoint = storage.read(config.checkpoint)
        spec = from_bytes(checkpoint).spec
        ingredients = {
            "checkpoint": hashlib.sha256(checkpoint).hexdigest(),
            "settings": config.identity_settings(),
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
    _check_labels(config, spec, manifest, storage)
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


def _manifest(config: SegmentConfig, storage: Storage, earlier: BaseRuns | None) -> Manifest:
    # Outputs may lie among the images, but their files are no inputs.
    leave_out = [config.output]
    known_inputs = None
    if earlier is not None:
        leave_out = [config.output, *earlier.outputs]
        known_inputs = earlier.known_inputs
    return build_manifest(storage, config.images, config.labels, config.limit, leave_out, known_inputs)


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
    if config.labels is None and not config.images.endswith((".parquet", ".csv", ".jsonl")):
        raise ConfigError(f"--label-space {config.label_space} has no effect without labels: give --labels or drop it")
    space = labels_of(config, spec)
    if len(space.classes) != len(spec.classes):
        raise ConfigError(
            f"label space {space.name} has {len(space.classes)} classes, the checkpoint {len(spec.classes)}: "
            "choose the label space that the network was trained with"
        )


def _check_labels(config: SegmentConfig, spec: NetworkSpec, manifest: Manifest, storage: Storage) -> None:
    """Decode the first labels; raise ConfigError if none of them has the network's classes.

    The remaining labels would then hardly have them either, and every labeled image would become an error row.
    """
    space = labels_of(config, spec)
    labelled = (uri for table in manifest.tables() for uri in table["label_uri"].to_pylist() if uri is not None)
    refused = []
    for uri in itertools.islice(labelled, _LOOKED_AT):
        try:
            data = storage.read(uri)
            decode_label(data, len(spec.classes), spec.ignore_label, space, max_pixels=config.max_pixels, name=uri)
            return
        except UnknownClasses as error:
            refused.append(str(error))
        except (DecodeError, ObjectMissing):
            # One bad file becomes an error row later; it is no evidence about the other files.
            return
    if refused:
        raise ConfigError(f"the labels contradict the checkpoint's {len(spec.classes)} classes: {refused[0]}")
