"""Model check of the attempt ledger: in every order of events, images that kill their process are found and no others.

A small cluster is played step by step: actors hold two shards each, images kill the process that touches them, and
nodes are lost or leave. Choices (who goes on, who is hit, when) are drawn at random, and tried in turn in a full sweep.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from pipeline.segmentation.supervision import Attempt, DepartedNodes, Ledger
from tests.shared import EXHAUSTIVE

T = TypeVar("T")
Choose = Callable[[Sequence[T]], T]
# An undisturbed game takes a few steps; with 3 attempts for each of three images it takes about twenty.
MOST_STEPS = 100
SAMPLED_GAMES = 300


def play_orders(play: Callable[[Choose[object]], None]) -> int:
    """Play with many sequences of choices, drawn at random; in a full sweep with every sequence, up to a limit.

    Returns:
        Number of games.
    """
    if EXHAUSTIVE:
        return every_order(play, 20_000)
    for seed in range(SAMPLED_GAMES):
        play(random.Random(seed).choice)
    return SAMPLED_GAMES


def every_order(play: Callable[[Choose[object]], None], limit: int) -> int:
    """Call `play` once for each sequence of choices that it can make, at most `limit` times; return the number."""
    taken: list[int] = []
    games = 0
    while games < limit:
        widths: list[int] = []

        def choose(options: Sequence[object], widths: list[int] = widths) -> object:
            if len(widths) == len(taken):
                taken.append(0)
            widths.append(len(options))
            return options[taken[len(widths) - 1]]

        play(choose)
        games += 1
        # The last choice that has an option left takes it; what came after it is open again.
        while widths and taken[len(widths) - 1] + 1 == widths[-1]:
            widths.pop()
        del taken[len(widths) :]
        if not taken:
            return games
        taken[-1] += 1
    return games


@dataclass
class Game:
    """Cluster in which a run is played; the protocol of its actors is that of `ShardActor.__call__`.

    Attributes:
        shards: Number of images of each shard.
        killers: (shard, position) of images that kill their process, in stage `decode`.
        actors: Shards that each actor holds.
        departures: Number of nodes that are lost or leave in the course of the game.
        most: Number of deaths before an image is quarantined.
    """

    shards: Sequence[int]
    killers: frozenset[tuple[int, int]]
    actors: Sequence[Sequence[int]]
    departures: int = 0
    most: int = 3
    images_kill_nodes: bool = False
    left: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)

    def play(self, choose: Choose[object]) -> None:
        ledger = Ledger(self.most, lambda: DepartedNodes(frozenset(self.left), frozenset(self.lost)))
        self.left.clear()
        self.lost.clear()
        held = [list(shards) for shards in self.actors]
        nodes = [f"node-{number}" for number in range(len(held))]
        departures = self.departures
        quarantined: dict[int, dict[int, str]] = {}
        for step in range(MOST_STEPS):
            busy = [number for number, shards in enumerate(held) if shards]
            if not busy:
                break
            actor = choose(busy)
            assert isinstance(actor, int)
            attempts = self._begin(ledger, held[actor], nodes[actor], choose)
            how = choose(["works", "lost", "left"]) if departures else "works"
            if how == "works":
                died = self._work(ledger, attempts, held[actor], quarantined, choose)
                if died and self.images_kill_nodes:
                    self.lost.add(nodes[actor])
            else:
                departures -= 1
                self._reach_any_place(ledger, attempts, choose)
                (self.lost if how == "lost" else self.left).add(nodes[actor])
                died = True
            if died:
                if nodes[actor] in self.lost | self.left:
                    nodes[actor] = f"node-{actor}-{step}"
                # The task of a dead actor may be given to any actor; here it stays, beside the order of the calls.
                held[actor].reverse()
        assert not any(held), "the run does not end"
        found = {(shard, position) for shard, positions in quarantined.items() for position in positions}
        assert found == self.killers

    def _begin(self, ledger: Ledger, held: list[int], node: str, choose: Choose[object]) -> dict[int, Attempt]:
        """Begin what one process runs at a time: ordinary attempts together, or an isolated one alone."""
        asked = {shard: ledger.begin(shard, node, exclusive=False) for shard in held}
        ordinary = {shard: attempt for shard, attempt in asked.items() if attempt is not None and not attempt.isolated}
        if ordinary:
            return ordinary
        alone = choose(held)
        assert isinstance(alone, int)
        attempt = ledger.begin(alone, node, exclusive=True)
        assert attempt is not None
        return {alone: attempt}

    def _work(
        self,
        ledger: Ledger,
        attempts: dict[int, Attempt],
        held: list[int],
        quarantined: dict[int, dict[int, str]],
        choose: Choose[object],
    ) -> bool:
        """Work on the attempts until all have ended or the process dies; return whether it died."""
        fatal = {shard for shard, attempt in attempts.items() if self._die(ledger, shard, attempt)}
        for shard, attempt in attempts.items():
            # If the process dies, a shard beside the fatal one may have ended before, or not.
            if shard in fatal or (fatal and choose([False, True])):
                continue
            ledger.end(shard)
            held.remove(shard)
            quarantined[shard] = dict(attempt.quarantined)
        return bool(fatal)

    def _die(self, ledger: Ledger, shard: int, attempt: Attempt) -> bool:
        """Go through the images; return whether one of them killed the process."""
        for position in range(self.shards[shard]):
            if position in attempt.quarantined:
                continue
            if attempt.isolated:
                ledger.record_stage(shard, attempt.number, (position, "decode"))
            if (shard, position) in self.killers:
                return True
        if attempt.isolated:
            ledger.record_stage(shard, attempt.number, None)
        return False

    def _reach_any_place(self, ledger: Ledger, attempts: dict[int, Attempt], choose: Choose[object]) -> None:
        """Let an isolated attempt reach any of its images, or none, before its node goes."""
        for shard, attempt in attempts.items():
            if attempt.isolated:
                places = [None, *((position, "decode") for position in range(self.shards[shard]))]
                place = choose(places)
                assert place is None or isinstance(place, tuple)
                ledger.record_stage(shard, attempt.number, place)


THREE_IN_ONE = frozenset({(0, 0), (0, 1), (0, 2)})
THREE_IN_TWO = frozenset({(0, 0), (0, 2), (1, 1)})


@pytest.mark.parametrize("killers", [THREE_IN_ONE, THREE_IN_TWO, frozenset({(0, 0), (1, 0), (2, 1)})])
@pytest.mark.parametrize("actors", [[[0, 1], [2, 3]], [[0, 1, 2, 3]], [[0, 2], [1], [3]]])
def test_images_that_kill_are_found_whoever_dies_beside_them(
    killers: frozenset[tuple[int, int]], actors: list[list[int]]
) -> None:
    assert play_orders(Game([3, 3, 2, 1], killers, actors).play) > 1


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("killers", [frozenset[tuple[int, int]](), frozenset({(0, 0)}), frozenset({(0, 1), (1, 0)})])
def test_nodes_that_go_take_no_image_with_them(killers: frozenset[tuple[int, int]], most: int) -> None:
    assert play_orders(Game([2, 2, 1], killers, [[0, 1], [2]], departures=2, most=most).play) > 1


@pytest.mark.parametrize("most", [1, 3])
def test_images_that_kill_whole_nodes_are_found(most: int) -> None:
    game = Game([2, 2], frozenset({(0, 1)}), [[0, 1]], most=most, images_kill_nodes=True)
    assert play_orders(game.play) > 1


def test_every_order_is_played_once() -> None:
    played = []

    def play(choose: Choose[object]) -> None:
        first = choose("ab")
        played.append((first, choose([1, 2, 3]) if first == "a" else None))

    assert every_order(play, 100) == 4
    assert played == [("a", 1), ("a", 2), ("a", 3), ("b", None)]
