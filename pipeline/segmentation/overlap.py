"""How much an actor has under way beside its network."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.segmentation.config import SegmentConfig

__all__ = ["ONE_BY_ONE", "Overlap"]


@dataclass(frozen=True)
class Overlap:
    """Enough to hide slow GETs and the labelling of a batch, little enough to bound memory.

    Attributes:
        batch: images of one size that the network takes at a time.
        ahead: images that are loaded ahead of the network, and as many that are finished behind it.
        threads: that load, and as many that finish.
        shards: in one actor's hands: one is predicted, another loads its first images, another is written.
    """

    batch: int
    ahead: int
    threads: int
    shards: int

    @classmethod
    def of(cls, config: SegmentConfig, *, on_gpu: bool) -> Overlap:
        """What suits the device, unless the configuration says otherwise."""
        # One image leaves an H200 a quarter slower than eight do; on a CPU one image is work enough for all cores.
        # A GPU takes hundreds of images a second, so that several GETs must be under way at any time.
        # It is done with a shard of 64 in less time than Ray takes to hand it another one.
        batch, threads, shards = (8, 8, 4) if on_gpu else (1, 2, 2)
        batch = config.batch_images or batch
        # While the network works on one batch, the next is complete and the one before is finished.
        return cls(batch, max(4, 2 * batch), threads, shards)


ONE_BY_ONE = Overlap(1, 0, 1, 1)
