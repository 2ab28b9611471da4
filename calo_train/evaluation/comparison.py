"""Judge samples by a reference: measure all, then every distance beside its floor.

Several samples share one reference, one threshold and one number of showers.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.errors import DataError
from calo_train.evaluation.classifier import ClassifierResult, VoxelScale, classify
from calo_train.evaluation.deposits import FloatArray, Grid
from calo_train.evaluation.floor import Halves, half_splits, matched_size
from calo_train.evaluation.further import further_distances
from calo_train.evaluation.moments import repeated_correlations
from calo_train.evaluation.observable_distances import (
    TablePair,
    automatic_binnings,
    compare_observables,
)
from calo_train.evaluation.results import Evaluation, SampleResult, Settings
from calo_train.evaluation.spectrum import spectrum_edges, voxel_range
from calo_train.evaluation.table import ShowerTable, measure
from calo_train.progress import Progress
from calo_train.quantities import format_energy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calo_train.evaluation.distances import Binning
    from calo_train.evaluation.shower_set import ShowerSet

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
    frame = _Frame(reference, table, grid, settings, automatic_binnings(table, grid), size)
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


def _judge(sample: ShowerSet, table: ShowerTable, frame: _Frame, clock: _Clock) -> SampleResult:
    splits = frame.splits(len(table))
    pair = TablePair(frame.table, table, frame.grid, splits)
    compared = compare_observables(pair, frame.binnings)
    correlations = repeated_correlations(frame.table, table, splits).metric
    clock.lap("distances")
    further = further_distances(pair, frame.reference, sample, frame.settings)
    clock.lap("further distances")
    classifier = _classify(sample, table, frame, splits)
    clock.lap("classifier")
    warnings = _sample_warnings(sample, table, frame)
    return SampleResult(
        sample,
        table,
        compared.observables,
        compared.layers,
        correlations,
        classifier,
        warnings,
        further,
        details=compared.details,
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
