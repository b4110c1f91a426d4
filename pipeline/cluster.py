"""What the Ray cluster can hold, and how Ray Data is to behave in it."""

from __future__ import annotations

import logging
import math

import ray
import ray._private.state

__all__ = ["describe_cluster", "draining", "memory_share", "places", "quiet_data"]


def places(cpus: float, gpus: float) -> int:
    """How many processes of so many CPUs and GPUs the nodes that stay hold at once; each must fit on one node."""
    return sum(_on_node(resources, cpus, gpus) for resources in _staying())


def memory_share(cpus: float) -> int:
    """Bytes that fall to so many CPUs, if a node's memory is shared by its CPUs; on the node that has least of it."""
    rooms = [node["memory"] / node["CPU"] for node in _staying() if node.get("memory") and node.get("CPU")]
    return int(cpus * min(rooms, default=0))


def draining() -> set[str]:
    """Ids of the nodes that are about to be taken away: alive still, but Ray places nothing new on them."""
    return set(ray._private.state.state.get_draining_nodes())


def describe_cluster() -> str:
    """The cluster's CPUs and GPUs, for messages."""
    total = ray.cluster_resources()
    return f"a cluster of {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"


def quiet_data() -> None:
    """Settings of Ray Data for a run whose progress is ours to show and whose every row counts."""
    # Imported here: it takes a second, in which other processes can start already.
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    # A lost block would be lost images: every error must surface.
    context.max_errored_blocks = 0
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # It would warn that progress bars are off, which the line above asked for.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def _staying() -> list[dict[str, float]]:
    """Resources of the nodes that are there to stay."""
    leaving = draining()
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]


def _on_node(resources: dict[str, float], cpus: float, gpus: float) -> int:
    fit = resources.get("CPU", 0.0) / cpus
    if gpus:
        fit = min(fit, resources.get("GPU", 0.0) / gpus)
    return math.floor(fit + 1e-9)
