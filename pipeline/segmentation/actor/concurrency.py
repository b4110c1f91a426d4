"""Concurrency of an actor: the amount of work in progress beside its network."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.segmentation.config import SegmentConfig

__all__ = ["SEQUENTIAL", "Concurrency"]


@dataclass(frozen=True)
class Concurrency:
    """Limits of the work in progress: enough to hide slow GETs and the labeling of a batch, with bounded memory.

    Attributes:
        batch: Largest number of images of one size in a network batch.
        ahead: Number of images that are loaded ahead of the network; as many again are finished behind it.
        threads: Number of threads that load images; as many again finish them.
        shards: Number of shards of one actor in progress: one is predicted, another loads its first images, another
            is written.
    """

    batch: int
    ahead: int
    threads: int
    shards: int

    @classmethod
    def of(cls, config: SegmentConfig, *, on_gpu: bool) -> Concurrency:
        """Return the limits that suit the device; `batch_images` of the configuration overrides the batch size."""
        # Batch: an H200 is a quarter slower with one image than with eight; on a CPU, one image occupies all cores.
        # Threads: a GPU predicts hundreds of images a second, so several GETs must be in progress at any time.
        # Shards: a GPU finishes a shard of 64 images before Ray delivers the next one.
        batch, threads, shards = (8, 8, 4) if on_gpu else (1, 2, 2)
        batch = config.batch_images or batch
        # While the network runs on one batch, the next one is loaded completely and the previous one is finished.
        return cls(batch, max(4, 2 * batch), threads, shards)


# One stage of one image at a time, so that a process that dies has one suspect.
SEQUENTIAL = Concurrency(1, 0, 1, 1)
