"""Response, resolution and correlations of shower observables (2005.05334, 2302.11594)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.floor import MIN_SHOWERS, Halves, IndexArray, Repeated, repeat

if TYPE_CHECKING:
    from calo_train.evaluation.deposits import FloatArray
    from calo_train.evaluation.table import ShowerTable

# Order of the published matrix.
CORRELATED = (
    "centre_of_gravity_x", "centre_of_gravity_y", "centre_of_gravity_z",
    "second_moment_x", "second_moment_y", "second_moment_z",
    "visible_energy", "incident_energy", "num_hits", "first_third", "second_third", "last_third",
)  # fmt: skip

_MAX_SINGLE_ENERGIES = 30


@dataclass(frozen=True)
class CentralInterval:
    """Mean and population standard deviation of the shortest interval that holds 90 %."""

    mean: float
    deviation: float
    num_values: int

    @property
    def mean_error(self) -> float:
        return self.deviation / float(np.sqrt(0.9 * self.num_values))

    @property
    def deviation_error(self) -> float:
        return self.deviation / float(np.sqrt(1.8 * self.num_values))


def central_interval(values: FloatArray) -> CentralInterval:
    """Give mu90 and sigma90 of values (n,), n at least 1 (2005.05334 and its plotting code).

    With m = floor(n / 10) of the sorted values x left out, the start s < m is where
    x[n - m + s] - x[s] is smallest, and x[s : s + n - m] is kept.
    """
    ordered = np.sort(values)
    num_left_out = len(ordered) // 10
    num_kept = len(ordered) - num_left_out
    start = 0
    if num_left_out:
        start = int(np.argmin(ordered[num_kept:] - ordered[:num_left_out]))
    kept = ordered[start : start + num_kept]
    return CentralInterval(float(kept.mean()), float(kept.std()), len(ordered))


def correlation_columns(table: ShowerTable) -> FloatArray:
    """Stack the correlated observables, (n, 12)."""
    columns = [
        table.incident_energy if name == "incident_energy" else table.column(name)
        for name in CORRELATED
    ]
    return np.stack(columns, axis=1)


def correlation_matrix(columns: FloatArray) -> FloatArray:
    """Give Pearson coefficients (k, k); 0 for a column that never varies."""
    centred = columns - columns.mean(axis=0)
    deviations = centred.std(axis=0)
    # A column constant up to rounding has no correlation, not a random one.
    varies = deviations > 1e-12 * np.maximum(np.abs(columns).max(axis=0), 1e-300)
    scaled = np.where(varies, centred / np.where(varies, deviations, 1.0), 0.0)
    matrix: FloatArray = scaled.T @ scaled / len(columns)
    return matrix


def mean_correlation_difference(first: FloatArray, second: FloatArray) -> float:
    """Give the mean |difference| of two correlation matrices above the diagonal."""
    above = np.triu_indices(len(first), k=1)
    return float(np.abs(first - second)[above].mean())


def repeated_correlations(
    reference: ShowerTable, sample: ShowerTable, splits: list[Halves]
) -> Repeated:
    """Give mean correlation differences of sample and floor in every repetition."""
    reference_columns, sample_columns = correlation_columns(reference), correlation_columns(sample)

    def distance(halves: Halves) -> tuple[float, float]:
        base = correlation_matrix(reference_columns[halves.first])
        return (
            mean_correlation_difference(correlation_matrix(sample_columns[halves.sample]), base),
            mean_correlation_difference(
                correlation_matrix(reference_columns[halves.second]), base
            ),
        )

    return repeat(splits, distance)


@dataclass(frozen=True, eq=False)
class EnergyBins:
    """Bins of incident energy with the central 90 % of the response in each."""

    edges: FloatArray
    centres: FloatArray  # mean incident energy of the bin
    response: list[CentralInterval]


def energy_edges(incident_energy: FloatArray, num_bins: int = 9) -> FloatArray | None:
    """Give equal bins, logarithmic above two decades, or one a value of a few single energies.

    None for one energy, and for values that are neither few nor many.
    """
    values, counts = np.unique(incident_energy, return_counts=True)
    if len(values) < 2 or values[-1] <= values[0] * (1 + 1e-6):
        return None
    if len(values) <= _MAX_SINGLE_ENERGIES and counts.min() >= MIN_SHOWERS:
        middles = np.sqrt(values[:-1] * values[1:])
        ends = values[0] ** 2 / middles[0], values[-1] ** 2 / middles[-1]
        return np.concatenate([[ends[0]], middles, [ends[1]]])
    if len(values) < 5 * num_bins:
        return None
    spaced = np.geomspace if values[-1] / values[0] > 100 else np.linspace
    return np.asarray(spaced(values[0], values[-1], num_bins + 1), dtype=np.float64)


def energy_bin(edges: FloatArray, incident_energy: FloatArray) -> IndexArray:
    """Give the bin of each energy; those outside count to the first and the last."""
    bins = np.searchsorted(edges, incident_energy, side="right") - 1
    return np.clip(bins, 0, len(edges) - 2)


def response_by_energy(table: ShowerTable, edges: FloatArray) -> EnergyBins:
    """Give mu90 and sigma90 of visible over incident energy in bins of incident energy."""
    bins = energy_bin(edges, table.incident_energy)
    filled = [
        index for index in range(len(edges) - 1) if np.count_nonzero(bins == index) >= MIN_SHOWERS
    ]
    response = table.column("visible_fraction")
    return EnergyBins(
        edges,
        np.asarray([table.incident_energy[bins == index].mean() for index in filled]),
        [central_interval(response[bins == index]) for index in filled],
    )
