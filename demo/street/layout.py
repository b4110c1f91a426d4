"""Where things stand: the plan of a street, in metres."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Lot", "Spot", "Street", "plan_street"]

END = 150.0  # the street is built up so far


@dataclass(frozen=True)
class Lot:
    """A stretch along one side.

    Attributes:
        side: -1 left, 1 right.
        near, far: metres along the street.
        kind: `house`, or `garden` behind a fence.
        height: of the house.
    """

    side: int
    near: float
    far: float
    kind: str
    height: float


@dataclass(frozen=True)
class Spot:
    """One thing that stands or moves; `turn` is 1 if it heads away from the camera, -1 if towards it, 0 across."""

    kind: str
    x: float
    z: float
    turn: int = 1


@dataclass(frozen=True)
class Street:
    """A whole plan.

    Attributes:
        road: half width of the road.
        pavement: width of each pavement.
        lots: on both sides.
        spots: everything else.
        crossing: metres to a zebra crossing; None without one.
    """

    road: float
    pavement: float
    lots: list[Lot]
    crossing: float | None
    spots: list[Spot] = field(default_factory=list)

    @property
    def edge(self) -> float:
        """From the middle to where the lots begin."""
        return self.road + self.pavement


def plan_street(rng: np.random.Generator) -> Street:
    """Plans one street; what belongs together stands together."""
    road, pavement = rng.uniform(3.2, 5.4), rng.uniform(2.2, 4.2)
    crossing = float(rng.uniform(9, 30)) if rng.random() < 0.3 else None
    houses = rng.uniform(0.35, 0.95)
    lots = [lot for side in (-1, 1) for lot in _lots(rng, side, houses * rng.uniform(0.6, 1.1))]
    street = Street(road, pavement, lots, crossing)
    for side in (-1, 1):
        street.spots.extend(_along_kerb(rng, street, side))
        street.spots.extend(_walkers(rng, street, side))
    street.spots.extend(_gardens(rng, street))
    street.spots.extend(_traffic(rng, street))
    return _without_collisions(street)


def _lots(rng: np.random.Generator, side: int, houses: float) -> list[Lot]:
    lots = []
    near, height = -12.0, rng.uniform(6, 15)
    while near < END:
        far = near + rng.uniform(8, 20)
        kind = "house" if rng.random() < houses else "garden"
        height = float(np.clip(height + rng.normal(0, 3), 4.5, 22))
        lots.append(Lot(side, near, far, kind, height))
        near = far
    return lots


def _along_kerb(rng: np.random.Generator, street: Street, side: int) -> list[Spot]:
    spots = []
    kerb = side * (street.road + 0.45)
    spacing, start = rng.uniform(14, 26), rng.uniform(4, 16)
    kind = rng.choice(["lamp", "lamp", "mast"])
    spots += [Spot(str(kind), kerb, z) for z in np.arange(start, 90, spacing)]
    if rng.random() < 0.4:
        spots += [Spot("street_tree", kerb + side * 0.3, z + spacing / 2) for z in np.arange(start, 80, spacing)]
    signs = rng.poisson(1.6)
    spots += [Spot("sign", kerb + side * rng.uniform(0, 0.4), rng.uniform(6, 34)) for _ in range(signs)]
    if rng.random() < 0.25:
        start = rng.uniform(5, 25)
        spots += [Spot("bollard", kerb, z) for z in start + 1.6 * np.arange(rng.integers(3, 8))]
    if street.road > 3.9 and rng.random() < 0.5:
        z = rng.uniform(5, 14)
        while z < 75:
            if rng.random() < 0.55:
                spots.append(Spot("car", side * (street.road - 1.0), z, 1 if side > 0 else -1))
            z += rng.uniform(5.6, 8)
    return spots


def _walkers(rng: np.random.Generator, street: Street, side: int) -> list[Spot]:
    spots = []
    for _ in range(rng.poisson(3.0)):
        x = side * (street.road + street.pavement * rng.uniform(0.35, 0.85))
        z = float(rng.gamma(2.5, 4.5) + 3.5)
        company = 1 + (rng.random() < 0.3)
        spots += [Spot("person", x + 0.6 * n, z + 0.2 * n, int(rng.choice([-1, 0, 1]))) for n in range(company)]
    return spots


def _gardens(rng: np.random.Generator, street: Street) -> list[Spot]:
    spots = []
    for lot in street.lots:
        if lot.kind == "garden":
            for _ in range(rng.integers(1, 4)):
                x = lot.side * (street.edge + rng.uniform(1.8, 6))
                spots.append(Spot("tree", x, rng.uniform(lot.near + 1, lot.far - 1)))
    # Whatever the street leads to.
    wide = street.edge + 40
    spots += [Spot("tree", x, END + rng.uniform(-10, 15)) for x in np.arange(-wide, wide, rng.uniform(4, 9))]
    return spots


def _traffic(rng: np.random.Generator, street: Street) -> list[Spot]:
    lane = street.road * 0.42
    spots = [Spot("car", -lane, z, -1) for z in _queue(rng)]
    spots += [Spot("car", lane, z, 1) for z in _queue(rng)]
    for _ in range(rng.poisson(2.0)):
        side = int(rng.choice([-1, 1], p=[0.35, 0.65]))
        spots.append(Spot("cyclist", side * (street.road - rng.uniform(0.6, 1.6)), rng.uniform(4.5, 22), side))
    if street.crossing is not None:
        for _ in range(rng.integers(0, 4)):
            x = rng.uniform(-street.road, street.road)
            spots.append(Spot("person", x, street.crossing + rng.uniform(0.3, 2.6), 0))
    elif rng.random() < 0.25:
        kind = str(rng.choice(["person", "cyclist"]))
        spots.append(Spot(kind, rng.uniform(-0.8, 0.8) * street.road, rng.uniform(7, 20), 0))
    return spots


def _queue(rng: np.random.Generator) -> list[float]:
    z = rng.uniform(8, 40)
    places = []
    while z < 100:
        places.append(float(z))
        z += 8 + rng.gamma(1.2, 20)
    return places


# Radius in metres within which nothing else of the kind's own rank may stand; in this order of precedence.
_ROOM = {"car": 2.6, "cyclist": 1.0, "person": 0.35, "lamp": 0.3, "mast": 0.3, "sign": 0.3, "bollard": 0.2}


def _without_collisions(street: Street) -> Street:
    kept: list[Spot] = [spot for spot in street.spots if spot.kind not in _ROOM]
    taken: list[tuple[Spot, float]] = []
    for kind, room in _ROOM.items():
        for spot in [each for each in street.spots if each.kind == kind]:
            # Cars are long and narrow: along the street they need twice the room.
            if all(
                math.hypot(1.6 * (spot.x - other.x), 0.9 * (spot.z - other.z)) > room + space for other, space in taken
            ):
                taken.append((spot, room))
                kept.append(spot)
    street.spots[:] = kept
    return street
