"""Distances of all observables between a sample and its reference, each beside its floor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.distances import (
    Binning,
    PooledOrder,
    automatic_binning,
    separation_power,
)
from calo_train.evaluation.floor import (
    BinnedPair,
    Halves,
    Repeated,
    deviation,
    mean_of_group,
    repeated_spectrum,
    repeated_wasserstein,
)
from calo_train.evaluation.observables import Observable, observables_of
from calo_train.evaluation.results import ObservableResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calo_train.evaluation.coarse_cosine import CoarseCells
    from calo_train.evaluation.deposits import FloatArray, Grid
    from calo_train.evaluation.table import ShowerTable

SPECTRUM = "cell_energy_spectrum"


@dataclass(frozen=True, eq=False)
class TablePair:
    """Tables of a reference and a sample, and the repetitions in which they are compared."""

    reference: ShowerTable
    sample: ShowerTable
    grid: Grid
    splits: Sequence[Halves]

    def columns(self, name: str, layer: int | None = None) -> tuple[FloatArray, FloatArray]:
        """Give an observable of both, (n,) each."""
        return self.reference.column(name, layer), self.sample.column(name, layer)


@dataclass(frozen=True, eq=False)
class Compared:
    """Headline observables, further ones, and the single layers of both."""

    observables: tuple[ObservableResult, ...]
    details: tuple[ObservableResult, ...]
    layers: tuple[ObservableResult, ...]


@dataclass(frozen=True, eq=False)
class _Distances:
    """One column's result with its distances in every repetition."""

    result: ObservableResult
    separation: Repeated
    chi2: Repeated
    wasserstein: Repeated


def automatic_binnings(table: ShowerTable, grid: Grid) -> dict[str, tuple[Binning, ...]]:
    """Bin every observable by the reference: one binning, or one a layer."""
    found = {}
    for name, observable in observables_of(grid).items():
        layers = range(observable.num_columns(grid)) if observable.is_per_layer else (None,)
        found[name] = tuple(
            automatic_binning(
                table.column(name, layer), observable.scale, is_count=observable.is_count
            )
            for layer in layers
        )
    return found


def compare_observables(
    pair: TablePair,
    binnings: Mapping[str, tuple[Binning, ...]],
    coarse: Sequence[CoarseCells] = (),
) -> Compared:
    """Compare all observables that the detector has, and cosines inside coarse voxels."""
    headline: list[ObservableResult] = []
    details: list[ObservableResult] = []
    layers: list[ObservableResult] = []
    for name, observable in observables_of(pair.grid).items():
        if observable.is_per_layer:
            result, members = _compare_layers(pair, observable, binnings[name])
            layers += members
        else:
            result = _compare(pair, observable, binnings[name][0]).result
        (headline if observable.is_headline else details).append(result)
    counted = [_compare_cosines(pair, cells) for cells in coarse]
    headline += [*counted, compare_spectrum(pair)]
    return Compared(tuple(headline), tuple(details), tuple(layers))


def _compare(
    pair: TablePair, observable: Observable, binning: Binning, layer: int | None = None
) -> _Distances:
    reference, sample = pair.columns(observable.name, layer)
    binned = BinnedPair.of(reference, sample, binning)
    separation, chi2 = binned.repeated(pair.splits)
    wasserstein = repeated_wasserstein(reference, sample, pair.splits)
    outside_sample, outside_reference = binned.shares_outside
    whole = PooledOrder(sample, reference).distance(
        np.arange(len(sample)), np.arange(len(reference))
    )
    result = ObservableResult(
        name=observable.name if layer is None else f"{observable.name}_{layer:02d}",
        title=observable.title_of(pair.grid, layer),
        symbol=observable.in_words_of(pair.grid, observable.symbol),
        unit=observable.unit,
        separation=separation.metric,
        separation_all=binned.separation_all,
        wasserstein=wasserstein.metric,
        wasserstein_all=whole / (deviation(reference) or 1.0),
        chi2=chi2.metric,
        num_bins=binning.num_bins,
        outside_sample=outside_sample,
        outside_reference=outside_reference,
        layer=layer,
        group=observable.name if layer is not None else None,
    )
    return _Distances(result, separation, chi2, wasserstein)


def _compare_layers(
    pair: TablePair, observable: Observable, binnings: Sequence[Binning]
) -> tuple[ObservableResult, list[ObservableResult]]:
    """Compare each layer, and their mean as one observable."""
    compared = [
        _compare(pair, observable, binning, layer) for layer, binning in enumerate(binnings)
    ]
    members = [entry.result for entry in compared]
    group = ObservableResult(
        name=observable.name,
        title=f"{observable.title_of(pair.grid)}, mean",
        symbol=observable.in_words_of(pair.grid, observable.symbol),
        unit=observable.unit,
        separation=mean_of_group([entry.separation for entry in compared]).metric,
        separation_all=float(np.mean([member.separation_all for member in members])),
        wasserstein=mean_of_group([entry.wasserstein for entry in compared]).metric,
        wasserstein_all=float(np.mean([member.wasserstein_all or 0.0 for member in members])),
        chi2=mean_of_group([entry.chi2 for entry in compared]).metric,
        num_bins=max(member.num_bins for member in members),
        outside_sample=float(np.mean([member.outside_sample for member in members])),
        outside_reference=float(np.mean([member.outside_reference for member in members])),
        is_group=True,
    )
    return group, members


def compare_spectrum(pair: TablePair) -> ObservableResult:
    """Compare the spectra of all voxels."""
    found = _compare_counts(pair.reference.spectrum, pair.sample.spectrum, pair.splits)
    return replace(
        found,
        name=SPECTRUM,
        title="cell energy spectrum",
        symbol=r"E_\mathrm{cell}",
        unit="MeV",
    )


def _compare_cosines(pair: TablePair, cells: CoarseCells) -> ObservableResult:
    """Compare cosines inside coarse voxels; the shares outside are those of undefined ones."""
    reference, sample = (
        table.coarse_cosines[cells.name] for table in (pair.reference, pair.sample)
    )
    found = _compare_counts(reference, sample, pair.splits)
    return replace(found, name=cells.name, title=cells.title, symbol=r"\rho")


def _compare_counts(
    reference: npt.NDArray[np.int32], sample: npt.NDArray[np.int32], splits: Sequence[Halves]
) -> ObservableResult:
    """Compare histograms with many entries a shower, (n, bins + 1), the last outside."""
    totals = [counts.sum(axis=0, dtype=np.float64) for counts in (sample, reference)]
    outside = [float(total[-1] / max(total.sum(), 1.0)) for total in totals]
    return ObservableResult(
        name="", title="", symbol="", unit="",
        separation=repeated_spectrum(reference, sample, splits).metric,
        separation_all=separation_power(totals[0][:-1], totals[1][:-1]),
        num_bins=reference.shape[1] - 1,
        outside_sample=outside[0],
        outside_reference=outside[1],
    )  # fmt: skip
