"""Judge samples by a reference: measure all, then every distance beside its floor.

Several samples share one reference, one threshold and one number of showers.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calo_train.errors import DataError
from calo_train.evaluation.classifier import ClassifierResult, VoxelScale, classify
from calo_train.evaluation.deposits import FloatArray, Grid
from calo_train.evaluation.distances import (
    Binning,
    PooledOrder,
    automatic_binning,
    separation_power,
)
from calo_train.evaluation.floor import (
    Halves,
    Repeated,
    half_splits,
    matched_size,
    mean_of_group,
    repeated_separation,
    repeated_spectrum,
    repeated_wasserstein,
)
from calo_train.evaluation.moments import repeated_correlations
from calo_train.evaluation.observables import OBSERVABLES, Observable
from calo_train.evaluation.results import Evaluation, ObservableResult, SampleResult, Settings
from calo_train.evaluation.table import ShowerTable, measure, spectrum_edges, voxel_range
from calo_train.progress import Progress
from calo_train.quantities import format_energy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calo_train.evaluation.shower_set import ShowerSet

SPECTRUM = "cell_energy_spectrum"
_SPECTRUM_PROBABILITY = 1e-6  # of two equal incident spectra being called different
_FEW_SHOWERS = 500
_log = logging.getLogger(__name__)


def evaluate(samples: Sequence[ShowerSet], reference: ShowerSet, settings: Settings) -> Evaluation:
    """Judge samples by a reference on the same detector.

    Raises DataError for other detectors, other incident spectra, too few or invalid showers.
    """
    for sample in samples:
        reference.geometry.require_equal(
            sample.geometry,
            where=f"{sample.label} against {reference.label}",
            do="give a reference of the sample's detector; calo-data info FILE shows it",
        )
    clock = _Clock()
    grid = Grid.of(reference.geometry)
    edges = spectrum_edges(voxel_range(reference, settings.threshold), settings.threshold)
    table, *tables = (
        measure(showers, grid, threshold=settings.threshold, spectrum=edges)
        for showers in (reference, *samples)
    )
    for sample, sample_table in zip(samples, tables, strict=True):
        require_same_spectrum(sample.label, sample_table, reference.label, table)
    clock.lap("observables")
    size = matched_size(len(table), [len(other) for other in tables])
    frame = _Frame(reference, table, grid, settings, _binnings(table), size)
    results = tuple(
        _judge(sample, sample_table, frame, clock)
        for sample, sample_table in zip(samples, tables, strict=True)
    )
    return Evaluation(
        reference, table, results, grid, settings, frame.binnings, edges, size,
        _reference_warnings(reference, table, size), clock.laps,
    )  # fmt: skip


def require_same_spectrum(
    label: str, table: ShowerTable, reference_label: str, reference_table: ShowerTable
) -> None:
    """Raise DataError, with both described, when the incident energies differ (KS, p < 1e-6)."""
    from scipy.stats import ks_2samp

    found, expected = table.incident_energy, reference_table.incident_energy
    probability = float(ks_2samp(found, expected, method="asymp").pvalue)
    if probability < _SPECTRUM_PROBABILITY:
        raise DataError(
            f"incident energies differ: {_spectrum_words(found)} in the sample, "
            f"{_spectrum_words(expected)} in the reference "
            f"(Kolmogorov-Smirnov p = {probability:.0e})",
            where=f"{label} against {reference_label}",
            do="draw the sample at the reference's conditions: calo-sample GENERATOR --like "
            "REFERENCE; with other energies every metric would differ",
        )


@dataclass(frozen=True, eq=False)
class _Frame:
    """What all samples of an evaluation are judged with."""

    reference: ShowerSet
    table: ShowerTable
    grid: Grid
    settings: Settings
    binnings: Mapping[str, tuple[Binning, ...]]  # one each, or one a layer
    size: int

    def splits(self, num_sample: int) -> list[Halves]:
        return list(
            half_splits(
                len(self.table),
                num_sample,
                size=self.size,
                repetitions=self.settings.repetitions,
                seed=self.settings.seed,
            )
        )


class _Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now


def _binnings(table: ShowerTable) -> dict[str, tuple[Binning, ...]]:
    found = {}
    for name, observable in OBSERVABLES.items():
        values = table.observables[name]
        columns = values.T if observable.is_per_layer else values[None]
        found[name] = tuple(
            automatic_binning(column, observable.scale, is_count=observable.is_count)
            for column in columns
        )
    return found


def _judge(sample: ShowerSet, table: ShowerTable, frame: _Frame, clock: _Clock) -> SampleResult:
    splits = frame.splits(len(table))
    observables: list[ObservableResult] = []
    layers: list[ObservableResult] = []
    for name, observable in OBSERVABLES.items():
        if observable.is_per_layer:
            group, members = _compare_layers(frame, observable, table, splits)
            observables.append(group)
            layers += members
        else:
            columns = (frame.table.observables[name], table.observables[name])
            (binning,) = frame.binnings[name]
            observables.append(_compare(frame, observable, binning, columns, splits)[0])
    observables.append(_compare_spectrum(frame, table, splits))
    correlations = repeated_correlations(frame.table, table, splits).metric
    clock.lap("distances")
    classifier = _classify(sample, table, frame, splits)
    clock.lap("classifier")
    warnings = _sample_warnings(sample, table, frame)
    return SampleResult(
        sample, table, tuple(observables), tuple(layers), correlations, classifier, warnings
    )


def _compare(
    frame: _Frame,
    observable: Observable,
    binning: Binning,
    columns: tuple[FloatArray, FloatArray],
    splits: list[Halves],
    *,
    layer: int | None = None,
) -> tuple[ObservableResult, Repeated, Repeated]:
    reference, sample = columns
    separation = repeated_separation(reference, sample, binning, splits)
    wasserstein = repeated_wasserstein(reference, sample, splits)
    whole = PooledOrder(sample, reference).distance(
        np.arange(len(sample)), np.arange(len(reference))
    )
    words = observable.title if layer is None else f"{observable.title} {layer}"
    result = ObservableResult(
        name=observable.name if layer is None else f"{observable.name}_{layer:02d}",
        title=observable.in_words_of(frame.grid, words),
        symbol=observable.in_words_of(frame.grid, observable.symbol),
        unit=observable.unit,
        separation=separation.metric,
        separation_all=separation_power(binning.counts(sample), binning.counts(reference)),
        wasserstein=wasserstein.metric,
        wasserstein_all=whole / (float(reference.std()) or 1.0),
        num_bins=binning.num_bins,
        outside_sample=binning.share_outside(sample),
        outside_reference=binning.share_outside(reference),
        layer=layer,
    )
    return result, separation, wasserstein


def _compare_layers(
    frame: _Frame,
    observable: Observable,
    table: ShowerTable,
    splits: list[Halves],
) -> tuple[ObservableResult, list[ObservableResult]]:
    """Compare each layer, and their mean as one headline observable."""
    references, samples = (
        frame.table.observables[observable.name],
        table.observables[observable.name],
    )
    compared = [
        _compare(
            frame,
            observable,
            binning,
            (references[:, layer], samples[:, layer]),
            splits,
            layer=layer,
        )
        for layer, binning in enumerate(frame.binnings[observable.name])
    ]
    members = [result for result, _, _ in compared]
    group = ObservableResult(
        name=observable.name,
        title=f"{observable.title}, mean over layers",
        symbol=observable.symbol,
        unit=observable.unit,
        separation=mean_of_group([separation for _, separation, _ in compared]).metric,
        separation_all=float(np.mean([member.separation_all for member in members])),
        wasserstein=mean_of_group([wasserstein for _, _, wasserstein in compared]).metric,
        wasserstein_all=float(np.mean([member.wasserstein_all or 0.0 for member in members])),
        num_bins=max(member.num_bins for member in members),
        outside_sample=float(np.mean([member.outside_sample for member in members])),
        outside_reference=float(np.mean([member.outside_reference for member in members])),
        is_group=True,
    )
    return group, members


def _compare_spectrum(frame: _Frame, table: ShowerTable, splits: list[Halves]) -> ObservableResult:
    reference, sample = frame.table.spectrum, table.spectrum
    totals = [counts.sum(axis=0, dtype=np.float64) for counts in (sample, reference)]
    outside = [float(total[-1] / max(total.sum(), 1.0)) for total in totals]
    return ObservableResult(
        name=SPECTRUM,
        title="cell energy spectrum",
        symbol=r"E_\mathrm{cell}",
        unit="MeV",
        separation=repeated_spectrum(reference, sample, splits).metric,
        separation_all=separation_power(totals[0][:-1], totals[1][:-1]),
        num_bins=reference.shape[1] - 1,
        outside_sample=outside[0],
        outside_reference=outside[1],
    )


def _classify(
    sample: ShowerSet, table: ShowerTable, frame: _Frame, splits: list[Halves]
) -> ClassifierResult | None:
    protocol = frame.settings.protocol
    if protocol.num_runs == 0:
        return None
    hits = float(frame.table.observables["num_hits"].sum())
    mean_hit = float(frame.table.observables["visible_energy"].sum()) / hits if hits else 1.0
    positions = [
        Halves(
            frame.table.positions[halves.first],
            frame.table.positions[halves.second],
            table.positions[halves.sample],
        )
        for halves in splits[: protocol.num_runs]
    ]
    epochs = 2 * protocol.num_runs * protocol.num_epochs
    with Progress(f"classifier of {sample.label}", epochs, unit="epochs") as progress:
        return classify(
            sample,
            frame.reference,
            positions,
            protocol,
            scale=VoxelScale(frame.settings.threshold, mean_hit),
            seed=frame.settings.seed,
            progress=progress,
        )


def _reference_warnings(reference: ShowerSet, table: ShowerTable, size: int) -> tuple[str, ...]:
    found = list(reference.notes)
    if table.health.num_invalid:
        found.append(_invalid_words("the reference", table))
    if size < _FEW_SHOWERS:
        found.append(
            f"distances and classifiers compare {size} showers with {size}: floors are high, and "
            "small differences cannot be seen"
        )
    return _logged(found)


def _sample_warnings(sample: ShowerSet, table: ShowerTable, frame: _Frame) -> tuple[str, ...]:
    found = list(sample.notes)
    if table.health.num_invalid:
        found.append(_invalid_words(sample.label, table))
    if sample.fingerprint() == frame.reference.fingerprint():
        found.append("sample and reference hold the same showers: this is a self-check")
    return _logged(found)


def _logged(warnings: list[str]) -> tuple[str, ...]:
    for warning in warnings:
        _log.warning("%s", warning)
    return tuple(warnings)


def _invalid_words(label: str, table: ShowerTable) -> str:
    health = table.health
    return (
        f"{label}: {health.num_non_finite} showers with NaN or infinite and {health.num_negative} "
        f"with negative voxel energies of {health.num_read} are left out; results are of the rest"
    )


def _spectrum_words(energies: FloatArray) -> str:
    low, mean, high = energies.min(), energies.mean(), energies.max()
    return (
        f"{len(energies)} showers of {format_energy(float(low))} to {format_energy(float(high))}, "
        f"mean {format_energy(float(mean))}"
    )
