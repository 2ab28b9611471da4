"""Judge samples by a reference: measure all, then every distance beside its floor.

Several samples share one reference, one threshold and one number of showers.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.evaluation.classifiers.memory import require_memory
from calo_train.evaluation.classifiers.stage import ClassifierStage
from calo_train.evaluation.coarse_cosine import CoarseCosine
from calo_train.evaluation.deposits import Grid
from calo_train.evaluation.floor import Halves, half_splits, matched_size
from calo_train.evaluation.further import further_distances
from calo_train.evaluation.incident_spectra import spectrum_warning
from calo_train.evaluation.known_showers import Training, copy_warnings, find_copies
from calo_train.evaluation.memorisation import Copies, memorisation_of
from calo_train.evaluation.moments import repeated_correlations
from calo_train.evaluation.observable_distances import (
    TablePair,
    automatic_binnings,
    compare_observables,
)
from calo_train.evaluation.results import Evaluation, SampleResult, Settings
from calo_train.evaluation.spectrum import spectrum_edges, voxel_range
from calo_train.evaluation.table import ShowerTable, measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calo_train.evaluation.distances import Binning
    from calo_train.evaluation.shower_set import ShowerSet

_FEW_SHOWERS = 500
_log = logging.getLogger(__name__)


def evaluate(
    samples: Sequence[ShowerSet],
    reference: ShowerSet,
    settings: Settings,
    training: Training | None = None,
) -> Evaluation:
    """Judge samples by a reference on the same detector; `training` of each, where known.

    Raises DataError for other detectors, a reference that was trained on, other incident spectra,
    too few or invalid showers; MachineError where classifiers do not fit into memory.
    """
    training = training or (None,) * len(samples)
    _require_one_detector(reference, [*samples, *filter(None, training)])
    clock = _Clock()
    copies = find_copies(reference, samples, training, settings.threshold)
    clock.lap("copies")
    grid = Grid.of(reference.geometry)
    sizes = [len(sample) for sample in samples]
    require_memory(settings.classifiers, grid, len(reference), sizes)
    coarse = [CoarseCosine.of(cells, grid.geometry) for cells in settings.coarse]
    edges = spectrum_edges(voxel_range(reference, settings.threshold), settings.threshold)
    table, *tables = (
        measure(showers, grid, threshold=settings.threshold, spectrum=edges, coarse=coarse)
        for showers in (reference, *samples)
    )
    spectra = [
        spectrum_warning(
            sample.label,
            sample_table.incident_energy,
            reference.label,
            table.incident_energy,
            is_allowed=settings.allow_different_energies,
        )
        for sample, sample_table in zip(samples, tables, strict=True)
    ]
    clock.lap("observables")
    size = matched_size(len(table), [len(other) for other in tables])
    stage = ClassifierStage.of(
        reference, table, grid, settings.classifiers,
        threshold=settings.threshold, seed=settings.seed,
    )  # fmt: skip
    frame = _Frame(reference, table, grid, settings, automatic_binnings(table, grid), size, stage)
    results = tuple(
        _judge(_Judged(*entry), frame, clock)
        for entry in zip(samples, tables, training, copies, spectra, strict=True)
    )
    multi = stage.among(list(zip(samples, tables, strict=True)))
    clock.lap("classifier")
    return Evaluation(
        reference, table, results, grid, settings, frame.binnings, edges, size,
        _reference_warnings(reference, table, size), clock.laps, multi,
    )  # fmt: skip


def _require_one_detector(reference: ShowerSet, others: Sequence[ShowerSet]) -> None:
    for showers in others:
        reference.geometry.require_equal(
            showers.geometry,
            where=f"{showers.label} against {reference.label}",
            do="give a reference of the sample's detector; calo-data info FILE shows it",
        )


@dataclass(frozen=True, eq=False)
class _Judged:
    """A measured sample, and what is known of it before it is compared."""

    showers: ShowerSet
    table: ShowerTable
    training: ShowerSet | None
    copies: Copies
    spectrum_warning: str | None


@dataclass(frozen=True, eq=False)
class _Frame:
    """What all samples of an evaluation are judged with."""

    reference: ShowerSet
    table: ShowerTable
    grid: Grid
    settings: Settings
    binnings: Mapping[str, tuple[Binning, ...]]  # one each, or one a layer
    size: int
    stage: ClassifierStage

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


def _judge(judged: _Judged, frame: _Frame, clock: _Clock) -> SampleResult:
    sample, table = judged.showers, judged.table
    splits = frame.splits(len(table))
    pair = TablePair(frame.table, table, frame.grid, splits)
    compared = compare_observables(pair, frame.binnings, frame.settings.coarse)
    correlations = repeated_correlations(frame.table, table, splits).metric
    clock.lap("distances")
    further = further_distances(pair, frame.reference, sample, frame.settings)
    memorisation = memorisation_of(
        judged.copies,
        (frame.reference, sample),
        judged.training,
        pair,
        threshold=frame.settings.threshold,
        seed=frame.settings.seed,
    )
    clock.lap("further distances")
    classifiers = frame.stage.judge(sample, table, splits)
    clock.lap("classifier")
    warnings = _sample_warnings(judged, frame)
    return SampleResult(
        sample,
        table,
        compared.observables,
        compared.layers,
        correlations,
        classifiers,
        warnings,
        further,
        memorisation,
        details=compared.details,
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


def _sample_warnings(judged: _Judged, frame: _Frame) -> tuple[str, ...]:
    sample, found = judged.showers, list(judged.showers.notes)
    if judged.spectrum_warning is not None:
        found.append(judged.spectrum_warning)
    if judged.table.health.num_invalid:
        found.append(_invalid_words(sample.label, judged.table))
    is_reference = sample.fingerprint() == frame.reference.fingerprint()
    if is_reference:
        found.append("sample and reference hold the same showers: this is a self-check")
    found += copy_warnings(sample, judged.copies, is_reference=is_reference)
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
