"""What a run is: its identity, its frozen manifest, its shards."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from model.checkpoint import from_bytes
from model.errors import CheckpointError
from model.network import NetworkSpec
from model.views import PLAIN
from pipeline.data.labels import decode_label
from pipeline.data.manifest import build_manifest
from pipeline.data.manifest_table import Manifest
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError, DecodeError, ObjectMissing, StorageError, StorageUnavailable, UnknownClasses
from pipeline.results.schemas import TABLE_FORMAT
from pipeline.segmentation.config import SegmentConfig, labels_of
from pipeline.segmentation.earlier import EarlierRuns, earlier_runs
from pipeline.segmentation.shards import FrozenFile, frozen_files

__all__ = ["Plan", "make_plan"]

_LOOKED_AT = 4


@dataclass(frozen=True)
class Plan:
    """One run. Two submissions with equal identities are the same run and leave the same files.

    Attributes:
        config: as asked for.
        spec: of the network.
        manifest: one row per input, sorted by URI.
        ingredients: what the identity is the digest of.
        since: output and run_id of the run whose images are left out, and how many are new, changed, unchanged and
            gone; None without one.
    """

    config: SegmentConfig
    spec: NetworkSpec
    manifest: Manifest
    ingredients: Mapping[str, Any]
    since: Mapping[str, Any] | None = None

    @property
    def identity(self) -> str:
        """SHA-256 of the ingredients."""
        return hashlib.sha256(json.dumps(self.ingredients, sort_keys=True).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """The identity's first 16 digits."""
        return self.identity[:16]

    @property
    def shards(self) -> int:
        """How many parts the run has."""
        return -(-self.manifest.num_rows // self.config.shard_images)

    def frozen_files(self) -> list[FrozenFile]:
        """What lies in the output before the first part: the manifest, and in a run since another one the changes."""
        files = frozen_files(self.manifest, "manifest", self.config.shard_images)
        if self.manifest.changes is not None:
            files += frozen_files(self.manifest.changes.table, "changes", self.config.shard_images)
        return files

    def shard_slice(self, shard: int) -> pa.Table:
        """The manifest rows of a shard."""
        return self.manifest.slice(shard * self.config.shard_images, self.config.shard_images)


def make_plan(config: SegmentConfig, storage: Storage) -> Plan:
    """Reads the checkpoint, lists the inputs and refuses what cannot work; writes nothing.

    Raises:
        ConfigError: naming the value and the remedy.
        IncompleteRun: if the run since which images count is not committed.
        RunConflict: if that run is one of another network or other settings.
        StorageUnavailable: if storage does not answer.
    """
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


def _earlier(storage: Storage, since: str, ingredients: Mapping[str, Any]) -> EarlierRuns:
    earlier = earlier_runs(storage, since)
    earlier.refuse_others(ingredients)
    return earlier


def _manifest(config: SegmentConfig, storage: Storage, earlier: EarlierRuns | None) -> Manifest:
    leave_out, recall = [config.output], None
    if earlier is not None:
        leave_out, recall = [config.output, *earlier.outputs], earlier.recall
    return build_manifest(storage, config.images, config.labels, config.limit, leave_out, recall)


def _check_settings(config: SegmentConfig, spec: NetworkSpec) -> None:
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
    """Looks into the first labels: if none of them speaks of the network's classes, the others will not either."""
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
            # One bad file is an error row later, and says nothing about the others.
            return
    if refused:
        raise ConfigError(f"the labels contradict the checkpoint's {len(spec.classes)} classes: {refused[0]}")
