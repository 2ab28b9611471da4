"""Precision, recall, density and coverage of showers among their nearest neighbours.

Definitions of 2002.09797 with the CaloChallenge's inputs (2410.21611): log10 of voxel energies,
0.1 MeV for those below the threshold. That lies above the threshold of data sets 2 and 3, so soft
hits sort below empty voxels there; it is kept for comparability, and the four numbers are given
once more with half the threshold in its place. All depend on the number of showers, hence the
floor beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.deposits import apply_threshold

if TYPE_CHECKING:
    from calo_train.evaluation.deposits import Energies
    from calo_train.evaluation.floor import Halves
    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.evaluation.table import ShowerTable

_EMPTY_VOXEL = 0.1  # MeV
HALF_THRESHOLD = "_half_threshold"  # after the names of numbers with that for empty voxels


@dataclass(frozen=True)
class NeighbourProtocol:
    """How many showers of each set are compared, and the neighbour that sets a radius."""

    max_showers: int = 2000
    num_neighbours: int = 5


@dataclass(frozen=True)
class Share:
    """A number with its standard error, beside that of reference against reference."""

    value: float
    error: float
    floor: float
    floor_error: float

    @property
    def significance(self) -> float:
        """How many standard errors value and floor lie apart, either way."""
        error = float(np.hypot(self.error, self.floor_error))
        return abs(self.value - self.floor) / error if error > 0 else 0.0


@dataclass(frozen=True)
class NeighbourResult:
    """The four numbers, twice; None with a `reason` where there are too few showers."""

    num_showers: int
    protocol: NeighbourProtocol
    shares: dict[str, Share] | None = None
    reason: str | None = None


def compare_neighbours(
    showers: tuple[ShowerSet, ShowerSet],
    tables: tuple[ShowerTable, ShowerTable],
    halves: Halves,
    threshold: float,
    protocol: NeighbourProtocol,
) -> NeighbourResult:
    """Compare (reference, sample): a sample with one half of the reference, and the other half."""
    number = min(len(halves.first), protocol.max_showers)
    if number <= 2 * protocol.num_neighbours:
        reason = f"{number} showers are too few for {protocol.num_neighbours} neighbours"
        return NeighbourResult(number, protocol, reason=reason)
    chosen = (
        (showers[0], tables[0].positions[halves.first[:number]]),
        (showers[0], tables[0].positions[halves.second[:number]]),
        (showers[1], tables[1].positions[halves.sample[:number]]),
    )
    energies = [_gather(entry, positions, threshold) for entry, positions in chosen]
    shares: dict[str, Share] = {}
    for empty, suffix in ((_EMPTY_VOXEL, ""), (threshold / 2, HALF_THRESHOLD)):
        if empty == 0:
            continue  # without a threshold
        first, second, sample = (_features(block, empty) for block in energies)
        centre = first.mean(axis=0)  # distances do not change, their rounding gets smaller
        first, second, sample = first - centre, second - centre, sample - centre
        values = neighbour_shares(first, sample, protocol.num_neighbours)
        floors = neighbour_shares(first, second, protocol.num_neighbours)
        shares |= {name + suffix: Share(*values[name], *floors[name]) for name in values}
    return NeighbourResult(number, protocol, shares)


def neighbour_shares(
    real: Energies, generated: Energies, num_neighbours: int
) -> dict[str, tuple[float, float]]:
    """Give the four numbers of features (n, k) and (m, k), each with its standard error."""
    between = squared_distances(real, generated)
    real_radius = _radii(squared_distances(real, real), num_neighbours)
    radius = _radii(squared_distances(generated, generated), num_neighbours)
    in_real_balls = between < real_radius[:, None]  # (real, generated)
    in_balls = between < radius[None, :]
    return {
        "precision": _mean(in_real_balls.any(axis=0)),
        "recall": _mean(in_balls.any(axis=1)),
        "density": _mean(in_real_balls.sum(axis=0) / num_neighbours),
        "coverage": _mean(between.min(axis=1) < real_radius),
    }


def squared_distances(first: Energies, second: Energies) -> Energies:
    """Give squared Euclidean distances between rows, (n, m)."""
    norms = [np.einsum("nk,nk->n", rows, rows) for rows in (first, second)]
    distances: Energies = norms[0][:, None] + norms[1][None, :] - 2 * (first @ second.T)
    return np.maximum(distances, 0)


def _radii(distances: Energies, num_neighbours: int) -> Energies:
    """Give each row's distance to its k-th neighbour, not counting itself."""
    np.fill_diagonal(distances, 0)
    return np.partition(distances, num_neighbours, axis=1)[:, num_neighbours]


def _mean(found: npt.ArrayLike) -> tuple[float, float]:
    values = np.asarray(found, dtype=np.float64)
    return float(values.mean()), float(values.std() / np.sqrt(len(values)))


def _gather(showers: ShowerSet, positions: object, threshold: float) -> Energies:
    rows = np.sort(np.asarray(positions))
    return apply_threshold(showers.gather(rows).energies, threshold)


def _features(energies: Energies, empty: float) -> Energies:
    return np.log10(np.where(energies > 0, energies, np.float32(empty)))
