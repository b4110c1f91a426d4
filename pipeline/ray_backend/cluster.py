"""Capacity of the Ray cluster and settings of Ray Data."""

from __future__ import annotations

import logging
import math

import ray
import ray._private.state
from ray.core.generated.common_pb2 import NodeDeathInfo

from pipeline.segmentation.supervision import DepartedNodes

__all__ = [
    "configure_ray_data",
    "count_actor_slots",
    "departed_nodes",
    "describe_cluster",
    "draining",
    "memory_share",
]

# Reasons for a node's death that nobody announced.
_UNEXPECTED = {NodeDeathInfo.UNSPECIFIED, NodeDeathInfo.UNEXPECTED_TERMINATION}


def count_actor_slots(cpus: float, gpus: float) -> int:
    """Return the number of processes that the nodes can run at the same time.

    Each process must fit on one node. Draining nodes do not count.

    Args:
        cpus: CPUs of one process, more than 0.
        gpus: GPUs of one process, 0 for none.
    """
    return sum(_on_node(resources, cpus, gpus) for resources in _staying())


def memory_share(cpus: float) -> int:
    """Return the memory, in bytes, that belongs to a number of CPUs.

    The memory of a node is divided evenly among its CPUs. The node with the least memory per CPU counts; draining nodes
    do not. The result is 0 if no node reports both memory and CPUs.
    """
    rooms = [node["memory"] / node["CPU"] for node in _staying() if node.get("memory") and node.get("CPU")]
    return int(cpus * min(rooms, default=0))


def draining() -> set[str]:
    """Return the ids of the nodes that are about to be removed.

    Such nodes are still alive, but Ray schedules nothing new on them.
    """
    return set(ray._private.state.state.get_draining_nodes())


def departed_nodes() -> DepartedNodes:
    """Return the nodes that left, are about to leave, or were lost.

    Ray states why a dead node died, except that a preempted machine may be gone before its deadline: it then counts as
    lost, unless it was seen while it was draining.
    """
    dead = {node["NodeID"]: node["DeathReason"] for node in ray.nodes() if not node["Alive"]}
    lost = frozenset(node for node, reason in dead.items() if reason in _UNEXPECTED)
    return DepartedNodes(frozenset(draining() | (dead.keys() - lost)), lost)


def describe_cluster() -> str:
    """Describe the cluster's total CPUs and GPUs for messages."""
    total = ray.cluster_resources()
    return f"a cluster of {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"


def configure_ray_data() -> None:
    """Configure Ray Data to show no progress bars and to tolerate no errors.

    The run shows its own progress, and every row counts.
    """
    # A late import: it takes a second, during which other processes can already start.
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    # A lost block would be lost images, so every error must surface.
    context.max_errored_blocks = 0
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # This logger would warn that progress bars are off, although the setting above requests that.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def _staying() -> list[dict[str, float]]:
    """Return the resources of each live node that is not draining."""
    leaving = draining()
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]


def _on_node(resources: dict[str, float], cpus: float, gpus: float) -> int:
    """Return the number of processes that fit on one node."""
    fit = resources.get("CPU", 0.0) / cpus
    if gpus:
        fit = min(fit, resources.get("GPU", 0.0) / gpus)
    # Resources may be fractions: the small term absorbs rounding errors, such as that of 0.3 / 0.1.
    return math.floor(fit + 1e-9)
