"""Tests of what is asked of the cluster: the number of processes that fit on its nodes, and the nodes that are gone."""

from __future__ import annotations

import pytest

from pipeline.ray_backend import cluster


@pytest.mark.parametrize(
    ("cpus", "gpus", "expected"), [(1, 0, 20), (8, 0, 2), (12, 0, 0), (4, 1, 2), (1, 2, 0), (0.5, 0.5, 4), (3, 0, 5)]
)
def test_places(monkeypatch: pytest.MonkeyPatch, cpus: float, gpus: float, expected: int) -> None:
    nodes = [
        {"NodeID": "a", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"NodeID": "b", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"NodeID": "c", "Alive": True, "Resources": {"CPU": 4.0}},
        {"NodeID": "dead", "Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        {"NodeID": "leaving", "Alive": True, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(cluster, "draining", lambda: {"leaving"})
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    assert cluster.count_actor_slots(cpus, gpus) == expected


def test_departed_nodes_by_the_reason_of_their_death(monkeypatch: pytest.MonkeyPatch) -> None:
    # The numbers are Ray's: unspecified, expected termination, unexpected termination, preempted, idle.
    nodes = [{"NodeID": f"dead-{reason}", "Alive": False, "DeathReason": reason} for reason in range(5)]
    nodes.append({"NodeID": "draining", "Alive": True, "DeathReason": 0})
    nodes.append({"NodeID": "alive", "Alive": True, "DeathReason": 0})
    monkeypatch.setattr(cluster, "draining", lambda: {"draining"})
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    departed = cluster.departed_nodes()
    assert departed.left == {"draining", "dead-1", "dead-3", "dead-4"}
    assert departed.lost == {"dead-0", "dead-2"}
