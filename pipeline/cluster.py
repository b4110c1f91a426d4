"""What the Ray cluster can hold."""

from __future__ import annotations

import math

import ray

__all__ = ["describe_cluster", "places"]


def places(cpus: float, gpus: float) -> int:
    """How many processes of so many CPUs and GPUs the living nodes hold at once; each must fit on one node."""
    return sum(_on_node(node["Resources"], cpus, gpus) for node in ray.nodes() if node["Alive"])


def describe_cluster() -> str:
    """The cluster's CPUs and GPUs, for messages."""
    total = ray.cluster_resources()
    return f"a cluster of {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"


def _on_node(resources: dict[str, float], cpus: float, gpus: float) -> int:
    fit = resources.get("CPU", 0.0) / cpus
    if gpus:
        fit = min(fit, resources.get("GPU", 0.0) / gpus)
    return math.floor(fit + 1e-9)
