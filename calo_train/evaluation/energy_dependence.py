"""What depends on the incident energy: linearity, resolution, and distances in bins of it.

Bins are single energies where the reference has a few, else equal ones of its range (logarithmic
above two decades). A bin needs showers enough for two halves of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.distances import automatic_binning
from calo_train.evaluation.floor import (
    MIN_SHOWERS,
    Halves,
    IndexArray,
    Metric,
    Repeated,
    half_splits,
    repeated_separation,
)
from calo_train.evaluation.moments import (
    CentralInterval,
    central_interval,
    energy_bin,
    energy_edges,
)
from calo_train.evaluation.observables import observables_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calo_train.evaluation.deposits import FloatArray
    from calo_train.evaluation.observable_distances import TablePair

NUM_SLICES = 5


@dataclass(frozen=True)
class EnergyRange:
    """A bin of incident energy in MeV, and how many showers lie in it."""

    low: float
    high: float
    mean: float  # of the reference
    num_reference: int
    num_sample: int


@dataclass(frozen=True)
class ResponseBin:
    """The central 90 % of visible over incident energy in a bin of incident energy."""

    energies: EnergyRange
    reference: CentralInterval
    sample: CentralInterval


@dataclass(frozen=True, eq=False)
class Response:
    """mu90 and sigma90 by incident energy.

    `linearity` is the mean over bins of |mu90 / mu90 of the reference - 1|, `resolution` the same
    of sigma90 / mu90.
    """

    bins: tuple[ResponseBin, ...]
    linearity: Metric
    resolution: Metric


@dataclass(frozen=True, eq=False)
class EnergySlice:
    """Separation powers of whole-shower observables within a bin of incident energy."""

    energies: EnergyRange
    matched_showers: int
    separations: Mapping[str, Metric]


@dataclass(frozen=True, eq=False)
class _Bin:
    energies: EnergyRange
    reference_rows: IndexArray
    sample_rows: IndexArray


def response_of(pair: TablePair) -> Response | None:
    """Compare mu90 and sigma90 of the response; None where no bin has showers enough."""
    columns = pair.columns("visible_fraction")
    bins = _bins(pair, num_bins=9)
    if not bins:
        return None
    labels = (
        _labels(len(columns[0]), [entry.reference_rows for entry in bins]),
        _labels(len(columns[1]), [entry.sample_rows for entry in bins]),
    )
    pairs = [_differences(halves, columns, labels, len(bins)) for halves in pair.splits]
    linearity, resolution = zip(*pairs, strict=True)
    return Response(
        tuple(
            ResponseBin(
                entry.energies,
                central_interval(columns[0][entry.reference_rows]),
                central_interval(columns[1][entry.sample_rows]),
            )
            for entry in bins
        ),
        Repeated.of(linearity).metric,
        Repeated.of(resolution).metric,
    )


def energy_slices(pair: TablePair, *, seed: int) -> tuple[EnergySlice, ...]:
    """Compare whole-shower observables within bins of incident energy, each with its own floor."""
    names = [name for name, entry in observables_of(pair.grid).items() if not entry.is_per_layer]
    found = []
    for entry in _bins(pair, num_bins=NUM_SLICES):
        size = min(len(entry.reference_rows) // 2, len(entry.sample_rows))
        splits = list(
            half_splits(
                len(entry.reference_rows),
                len(entry.sample_rows),
                size=size,
                repetitions=len(pair.splits),
                seed=seed,
            )
        )
        separations = {}
        for name in names:
            reference, sample = pair.columns(name)
            inside = reference[entry.reference_rows], sample[entry.sample_rows]
            observable = observables_of(pair.grid)[name]
            binning = automatic_binning(inside[0], observable.scale, is_count=observable.is_count)
            separations[name] = repeated_separation(*inside, binning, splits).metric
        found.append(EnergySlice(entry.energies, size, separations))
    return tuple(found)


def _bins(pair: TablePair, *, num_bins: int) -> list[_Bin]:
    reference, sample = pair.reference.incident_energy, pair.sample.incident_energy
    edges = energy_edges(reference, num_bins)
    if edges is None:
        edges = np.asarray([reference.min(), reference.max()])
    bins = energy_bin(edges, reference), energy_bin(edges, sample)
    found = []
    for index in range(len(edges) - 1):
        rows = [np.flatnonzero(values == index) for values in bins]
        if len(rows[0]) < 2 * MIN_SHOWERS or len(rows[1]) < MIN_SHOWERS:
            continue
        energies = EnergyRange(
            float(edges[index]), float(edges[index + 1]), float(reference[rows[0]].mean()),
            len(rows[0]), len(rows[1]),
        )  # fmt: skip
        found.append(_Bin(energies, rows[0], rows[1]))
    return found


def _labels(number: int, groups: Sequence[IndexArray]) -> IndexArray:
    """Give the group of each row, -1 for none."""
    labels = np.full(number, -1)
    for index, rows in enumerate(groups):
        labels[rows] = index
    return labels


def _differences(
    halves: Halves,
    columns: tuple[FloatArray, FloatArray],
    labels: tuple[IndexArray, IndexArray],
    num_bins: int,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Give (value, floor) of linearity and of resolution in one repetition."""
    base = _intervals(columns[0], labels[0], halves.first, num_bins)
    others = (
        _intervals(columns[1], labels[1], halves.sample, num_bins),
        _intervals(columns[0], labels[0], halves.second, num_bins),
    )
    means, widths = zip(*(_mean_differences(other, base) for other in others), strict=True)
    return (means[0], means[1]), (widths[0], widths[1])


def _intervals(
    values: FloatArray, labels: IndexArray, rows: IndexArray, num_bins: int
) -> list[CentralInterval | None]:
    found = []
    for index in range(num_bins):
        inside = values[rows[labels[rows] == index]]
        found.append(central_interval(inside) if len(inside) else None)
    return found


def _mean_differences(
    found: Sequence[CentralInterval | None], base: Sequence[CentralInterval | None]
) -> tuple[float, float]:
    means, widths = [], []
    for one, other in zip(found, base, strict=True):
        if one is None or other is None or not (one.mean and other.mean and other.deviation):
            continue
        means.append(abs(one.mean / other.mean - 1))
        resolution = (one.deviation / one.mean) / (other.deviation / other.mean)
        widths.append(abs(resolution - 1))
    return (float(np.mean(means)), float(np.mean(widths))) if means else (0.0, 0.0)
