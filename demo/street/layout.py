"""Plan of a street in meters: houses, gardens, trees, street furniture, people and traffic."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Lot", "Spot", "Street", "plan_street"]

END = 150.0  # meters along the street up to which lots are planned


@dataclass(frozen=True)
class Lot:
    """Stretch along one side of the street.

    Attributes:
        side: Side of the street: -1 left, 1 right.
        near, far: Beginning and end in meters along the street.
        kind: `house`, or `garden` behind a fence.
        height: Height of the house in meters.
    """

    side: int
    near: float
    far: float
    kind: str
    height: float


@dataclass(frozen=True)
class Spot:
    """Single object that stands or moves in the street.

    Attributes:
        kind: Name of the object, such as `car` or `street_tree`.
        x: Offset to the right of the road's middle in meters.
        z: Distance along the street in meters.
        turn: Direction: 1 away from the camera, -1 towards it, 0 across the street.
    """

    kind: str
    x: float
    z: float
    turn: int = 1


@dataclass(frozen=True)
class Street:
    """Complete plan of a street.

    Attributes:
        road: Half the width of the road in meters.
        pavement: Width of each pavement in meters.
        lots: Houses and gardens on both sides.
        crossing: Distance to a zebra crossing in meters; None: there is none.
        spots: All other objects.
    """

    road: float
    pavement: float
    lots: list[Lot]
    crossing: float | None
    spots: list[Spot] = field(default_factory=list)

    @property
    def edge(self) -> float:
        """Distance in meters from the middle of the road to the front of the lots."""
        return self.road + self.pavement


def plan_street(rng: np.random.Generator) -> Street:
    """Plan a random street in which related objects stand together, without collisions."""
    road = rng.uniform(3.2, 5.4)
    pavement = rng.uniform(2.2, 4.2)
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
    """Return lots of one side; `houses` is the probability of a house. Heights vary gradually from lot to lot."""
    lots = []
    near = -12.0
    height = rng.uniform(6, 15)
    while near < END:
        far = near + rng.uniform(8, 20)
        kind = "house" if rng.random() < houses else "garden"
        height = float(np.clip(height + rng.normal(0, 3), 4.5, 22))
        lots.append(Lot(side, near, far, kind, height))
        near = far
    return lots


def _along_kerb(rng: np.random.Generator, street: Street, side: int) -> list[Spot]:
    """Return lamps or masts, trees, signs, bollards and parked cars along one curb."""
    spots = []
    kerb = side * (street.road + 0.45)
    spacing = rng.uniform(14, 26)
    start = rng.uniform(4, 16)
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
    """Return pedestrians on one pavement; some walk in pairs."""
    spots = []
    for _ in range(rng.poisson(3.0)):
        x = side * (street.road + street.pavement * rng.uniform(0.35, 0.85))
        z = float(rng.gamma(2.5, 4.5) + 3.5)
        company = 1 + (rng.random() < 0.3)
        spots += [Spot("person", x + 0.6 * n, z + 0.2 * n, int(rng.choice([-1, 0, 1]))) for n in range(company)]
    return spots


def _gardens(rng: np.random.Generator, street: Street) -> list[Spot]:
    """Return trees in the gardens, and a row of trees that closes the street at its far end."""
    spots = []
    for lot in street.lots:
        if lot.kind == "garden":
            for _ in range(rng.integers(1, 4)):
                x = lot.side * (street.edge + rng.uniform(1.8, 6))
                spots.append(Spot("tree", x, rng.uniform(lot.near + 1, lot.far - 1)))
    # Trees across the far end, so that the street does not end in the sky.
    wide = street.edge + 40
    spots += [Spot("tree", x, END + rng.uniform(-10, 15)) for x in np.arange(-wide, wide, rng.uniform(4, 9))]
    return spots


def _traffic(rng: np.random.Generator, street: Street) -> list[Spot]:
    """Return cars in both lanes, cyclists, and people who cross the road."""
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
    """Return distances of cars in one lane, in meters, at least 8 m apart."""
    z = rng.uniform(8, 40)
    places = []
    while z < 100:
        places.append(float(z))
        z += 8 + rng.gamma(1.2, 20)
    return places


# Radius in meters that a kind keeps clear. Earlier kinds take precedence; trees are not listed and always stay.
_ROOM = {"car": 2.6, "cyclist": 1.0, "person": 0.35, "lamp": 0.3, "mast": 0.3, "sign": 0.3, "bollard": 0.2}


def _without_collisions(street: Street) -> Street:
    """Remove objects that are too close to one with precedence; return the street."""
    kept: list[Spot] = [spot for spot in street.spots if spot.kind not in _ROOM]
    taken: list[tuple[Spot, float]] = []
    for kind, room in _ROOM.items():
        for spot in [each for each in street.spots if each.kind == kind]:
            # Scale the distance by 1.6 across and 0.9 along the street, since cars are long and narrow.
            if all(
                math.hypot(1.6 * (spot.x - other.x), 0.9 * (spot.z - other.z)) > room + space for other, space in taken
            ):
                taken.append((spot, room))
                kept.append(spot)
    street.spots[:] = kept
    return street
