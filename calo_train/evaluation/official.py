"""The CaloChallenge's histograms to the letter (2410.21611), for its detectors.

Bins are [a, b), the last closed; what lies outside is dropped before each histogram is normalised,
so the share outside stands beside every number. Layers without energy have centroids and widths 0
and count as such. Values of single layers are averaged, as in the published tables.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from calo_train.evaluation.distances import Binning
from calo_train.evaluation.floor import BinnedPair, Halves, Repeated, mean_of_group
from calo_train.evaluation.observable_distances import TablePair, compare_spectrum
from calo_train.evaluation.results import ObservableResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calo_train.evaluation.deposits import FloatArray
    from calo_train.evaluation.table import ShowerTable
    from calo_train.geometry import Geometry

_THRESHOLD_RTOL = 1e-4
_ENERGIES = tuple(2.0**power for power in range(8, 24))  # of data set 1, MeV; the last is an end
_FIRST_NARROW = 4  # photons: narrow range from this energy on


@dataclass(frozen=True)
class OfficialDataset:
    """A data set of the challenge: its name there, ATLAS' layer numbers, threshold in MeV."""

    name: str
    layer_ids: tuple[int, ...]
    threshold: float

    @property
    def has_single_energies(self) -> bool:
        return self.name.startswith("1")


@dataclass(frozen=True)
class OfficialHistogram:
    """One histogram of the challenge: a column of the table, its bins, and which showers."""

    label: int  # layer, or MeV of the incident energy
    values: Callable[[ShowerTable], FloatArray]
    binning: Binning
    energy_range: tuple[float, float] | None = None

    def compare(self, pair: TablePair) -> tuple[ObservableResult, Repeated]:
        """Give the result, still without a name, and the separation power of every repetition."""
        binned = BinnedPair.of(self.values(pair.reference), self.values(pair.sample), self.binning)
        splits = pair.splits
        if self.energy_range is not None:
            binned, splits = self._at_energies(pair, binned)
        separation = binned.repeated_separation(splits)
        outside_sample, outside_reference = binned.shares_outside
        found = ObservableResult(
            name="", title="", symbol="", unit="",
            separation=separation.metric,
            separation_all=binned.separation_all,
            num_bins=self.binning.num_bins,
            outside_sample=outside_sample,
            outside_reference=outside_reference,
        )  # fmt: skip
        return found, separation

    def _at_energies(
        self, pair: TablePair, binned: BinnedPair
    ) -> tuple[BinnedPair, Sequence[Halves]]:
        """Keep the showers of the energy range; rows of halves count these alone."""
        assert self.energy_range is not None
        low, high = self.energy_range
        reference, sample = (
            (table.incident_energy >= low) & (table.incident_energy < high)
            for table in (pair.reference, pair.sample)
        )
        ranks = np.cumsum(reference) - 1, np.cumsum(sample) - 1
        splits = [
            Halves(
                ranks[0][halves.first[reference[halves.first]]],
                ranks[0][halves.second[reference[halves.second]]],
                ranks[1][halves.sample[sample[halves.sample]]],
            )
            for halves in pair.splits
        ]
        kept = binned.reference[reference], binned.sample[sample]
        return BinnedPair(*kept, binned.num_bins), splits


@dataclass(frozen=True, eq=False)
class OfficialResult:
    """Separation powers in official bins; `reason` says why there are none on such a detector."""

    dataset: str
    observables: tuple[ObservableResult, ...] = ()
    layers: tuple[ObservableResult, ...] = ()
    reason: str | None = None


_SHAPES: dict[tuple[tuple[int, int], ...], OfficialDataset] = {
    ((1, 8), (10, 16), (10, 19), (1, 5), (1, 5)): OfficialDataset(
        "1-photons", (0, 1, 2, 3, 12), 1.0
    ),
    ((1, 8), (10, 10), (10, 10), (1, 5), (10, 15), (10, 16), (1, 10)): OfficialDataset(
        "1-pions", (0, 1, 2, 3, 12, 13, 14), 1.0
    ),
    ((16, 9),) * 45: OfficialDataset("2", tuple(range(45)), 0.5e-3 / 0.033),
    ((50, 18),) * 45: OfficialDataset("3", tuple(range(45)), 0.5e-3 / 0.033),
}


def official_dataset(geometry: Geometry) -> OfficialDataset | None:
    """Recognise a detector of the challenge by its angular and radial cells."""
    names = {(first.name, second.name) for first, second in (g.axes for g in geometry.layers)}
    return _SHAPES.get(geometry.layer_shapes) if names == {("alpha", "r")} else None


def compare_officially(pair: TablePair, threshold: float) -> OfficialResult | None:
    """Give the challenge's separation powers; None on other detectors."""
    dataset = official_dataset(pair.grid.geometry)
    if dataset is None:
        return None
    if abs(threshold - dataset.threshold) > _THRESHOLD_RTOL * dataset.threshold:
        return OfficialResult(
            dataset.name,
            reason=f"official numbers are taken at a threshold of {dataset.threshold:.7g} MeV, "
            f"not at {threshold:.7g} MeV",
        )
    groups, members = [], []
    for name, (title, unit, histograms) in _histograms(dataset, pair).items():
        group, found = _compare(pair, name, title, unit, histograms)
        groups.append(group)
        members += found
    spectrum = compare_spectrum(pair)
    return OfficialResult(dataset.name, (*groups, spectrum), tuple(members))


def _histograms(
    dataset: OfficialDataset, pair: TablePair
) -> dict[str, tuple[str, str, list[OfficialHistogram]]]:
    """Give title, unit and histograms of every official observable but the voxel spectrum."""
    geometry = pair.grid.geometry
    ids = dict(enumerate(dataset.layer_ids))
    total = OfficialHistogram(0, _column("visible_fraction"), _linear((0.5, 1.5), 100))
    energies = [
        OfficialHistogram(
            ids[index], _column("layer_energy", index), _energy_bins(dataset, pair, index)
        )
        for index in ids
    ]
    found = {
        "visible_fraction": ("visible over incident energy", "", [total]),
        "layer_energy": ("energy of layers", "MeV", energies),
    }
    for name, shape in _SHAPE_RANGES.items():
        found[name] = (
            shape.title,
            "mm",
            [
                OfficialHistogram(
                    ids[index], _column(name, index), _linear(shape.of(dataset, ids[index]), 100)
                )
                for index in ids
                if shape.is_radial or geometry.layers[index].axes[0].num_cells > 1
            ],
        )
    sparsities = [
        OfficialHistogram(ids[index], _sparsity(index, layer.num_voxels), _linear((0.0, 1.0), 20))
        for index, layer in enumerate(geometry.layers)
    ]
    found["layer_sparsity"] = ("sparsity of layers", "", sparsities)
    if dataset.has_single_energies and (at_energies := _single_energies(dataset, pair)):
        title = "visible over incident energy at single energies"
        found["visible_fraction_at"] = (title, "", at_energies)
    return found


@dataclass(frozen=True)
class _ShapeRange:
    """Ranges of a centroid or width in mm, symmetric where `is_signed`."""

    title: str
    small: float  # data sets 2 and 3
    near: float  # data set 1
    wide: float  # its layers `wide_layers`
    wide_layers: tuple[int, ...] = (12, 13)
    is_signed: bool = False
    is_radial: bool = False

    def of(self, dataset: OfficialDataset, layer_id: int) -> tuple[float, float]:
        """Give the ends of the histogram of a layer."""
        end = self.small
        if dataset.has_single_energies:
            end = self.wide if layer_id in self.wide_layers else self.near
        return (-end if self.is_signed else 0.0), end


_CENTRE, _WIDTH = partial(_ShapeRange, is_signed=True), _ShapeRange
_RADIAL = partial(_ShapeRange, wide_layers=(12, 13, 14), is_radial=True)
_SHAPE_RANGES = {
    "layer_centroid_x": _CENTRE("centre of energy in eta of layers", 30, 100, 500),
    "layer_centroid_y": _CENTRE("centre of energy in phi of layers", 30, 100, 500),
    "layer_width_x": _WIDTH("width in eta of layers", 30, 100, 400),
    "layer_width_y": _WIDTH("width in phi of layers", 30, 100, 400),
    "layer_centroid_r": _RADIAL("centre of energy in r of layers", 42, 500, 1500),
    "layer_width_r": _RADIAL("width in r of layers", 20, 500, 1500),
}


def _single_energies(dataset: OfficialDataset, pair: TablePair) -> list[OfficialHistogram]:
    """Give a histogram for every energy of the data set that the reference holds."""
    incident, found = pair.reference.incident_energy, []
    for index, (low, high) in enumerate(pairwise(_ENERGIES)):
        if not np.any((incident >= low) & (incident < high)):
            continue
        is_narrow = dataset.name == "1-photons" and index >= _FIRST_NARROW
        binning = _linear((0.9, 1.1) if is_narrow else (0.4, 1.4), 20)
        found.append(
            OfficialHistogram(int(low), _column("visible_fraction"), binning, (low, high))
        )
    return found


def _column(name: str, layer: int | None = None) -> Callable[[ShowerTable], FloatArray]:
    return lambda table: table.column(name, layer)


def _sparsity(layer: int, num_voxels: int) -> Callable[[ShowerTable], FloatArray]:
    # From the counts: the edges of 20 bins tell the last digit.
    return lambda table: 1.0 - table.column("layer_hits", layer) / num_voxels


def _linear(ends: tuple[float, float], num_bins: int) -> Binning:
    return Binning(np.linspace(*ends, num_bins + 1), is_log=False)


def _energy_bins(dataset: OfficialDataset, pair: TablePair, layer: int) -> Binning:
    low = dataset.threshold
    high = max(float(pair.reference.column("layer_energy", layer).max()), low * 1.01)
    return Binning(np.geomspace(low, high, 40), is_log=True)


def _compare(
    pair: TablePair,
    name: str,
    title: str,
    unit: str,
    histograms: Sequence[OfficialHistogram],
) -> tuple[ObservableResult, list[ObservableResult]]:
    """Compare the histograms of an observable, and their mean where there are many."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        compared = list(threads.map(lambda histogram: histogram.compare(pair), histograms))
    blank = ObservableResult(name, title, "", unit, compared[0][0].separation, 0.0)
    members = [
        replace(
            found,
            name=f"{name}_{histogram.label:02d}",
            title=_single(title, histogram.label),
            unit=unit,
            layer=histogram.label,
            group=name,
        )
        for histogram, (found, _) in zip(histograms, compared, strict=True)
    ]
    group = replace(
        blank,
        separation=mean_of_group([repeated for _, repeated in compared]).metric,
        separation_all=float(np.mean([member.separation_all for member in members])),
        num_bins=histograms[0].binning.num_bins,
        outside_sample=float(np.mean([member.outside_sample for member in members])),
        outside_reference=float(np.mean([member.outside_reference for member in members])),
        is_group=len(members) > 1,
    )
    return group, members if group.is_group else []


def _single(title: str, label: int) -> str:
    """Name one histogram of many."""
    return title.replace("layers", f"layer {label}").replace("single energies", f"{label} MeV")
