"""What a sample is judged by beyond the distances of single observables, in one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.evaluation.energy_dependence import (
    EnergySlice,
    Response,
    energy_slices,
    response_of,
)
from calo_train.evaluation.neighbours import (
    NeighbourProtocol,
    NeighbourResult,
    compare_neighbours,
)
from calo_train.evaluation.official import OfficialResult, compare_officially
from calo_train.evaluation.physics_distances import PhysicsDistances, physics_distances
from calo_train.progress import Progress

if TYPE_CHECKING:
    from calo_train.evaluation.observable_distances import TablePair
    from calo_train.evaluation.results import Settings
    from calo_train.evaluation.shower_set import ShowerSet


@dataclass(frozen=True, eq=False)
class FurtherDistances:
    """Official numbers, what depends on energy, FPD and KPD, neighbours."""

    official: OfficialResult | None  # None for other detectors
    response: Response | None  # None where no energy has showers enough
    slices: tuple[EnergySlice, ...]
    physics: PhysicsDistances
    neighbours: NeighbourResult


def further_distances(
    pair: TablePair, reference: ShowerSet, sample: ShowerSet, settings: Settings
) -> FurtherDistances:
    """Compute all of them for a sample."""
    with Progress(f"FPD and KPD of {sample.label}", 3, unit="comparisons") as progress:
        physics = physics_distances(pair, progress=progress)
    return FurtherDistances(
        compare_officially(pair, settings.threshold),
        response_of(pair),
        energy_slices(pair, seed=settings.seed),
        physics,
        compare_neighbours(
            (reference, sample),
            (pair.reference, pair.sample),
            pair.splits[0],
            settings.threshold,
            NeighbourProtocol(),
        ),
    )
