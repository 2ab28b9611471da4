"""Showers of low, middle and high incident energy apart, as papers show single energies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.distances import automatic_binning
from calo_train.evaluation.figures.distributions import bin_numbers
from calo_train.evaluation.figures.gallery import shows
from calo_train.evaluation.figures.style import (
    Column,
    FloatArray,
    ReportFigure,
    axis_label,
    caption_tail,
    draw_ratio,
    draw_steps,
    sample_curves,
    small_ratio_panels,
)
from calo_train.evaluation.moments import energy_bin, energy_edges
from calo_train.evaluation.observables import OBSERVABLES, Observable
from calo_train.quantities import format_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calo_train.evaluation.results import Evaluation
    from calo_train.evaluation.table import ShowerTable

_NUM_SLICES = 3
_FEWEST = 20  # showers of the reference in a slice
_OBSERVABLES = ("visible_energy", "num_hits")
_NEEDED = (*_OBSERVABLES, "layer_energy")


@dataclass(frozen=True, eq=False)
class _Look:
    """What is drawn of the showers of one slice: values and errors on edges, and the labels."""

    edges: FloatArray
    measure: Callable[[ShowerTable], tuple[FloatArray, FloatArray]]
    x_label: str
    y_label: str


@shows("Energy", "Cells", rank=35)
def observables_by_energy(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw visible energy and hits at three energies; nothing without a spectrum."""
    for name in _OBSERVABLES:
        observable = OBSERVABLES[name]
        if observable.section == section:
            look = partial(_distribution, observable=observable)
            yield from _figures(evaluation, look, name, observable.title, section)


@shows("Depth", rank=11)
def longitudinal_by_energy(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the mean energy of each layer at three energies."""
    num_layers = evaluation.reference.geometry.num_layers
    edges: FloatArray = np.linspace(-0.5, num_layers - 0.5, num_layers + 1)
    look = _Look(
        edges, lambda table: _mean(table.observables["layer_energy"]), "layer", "mean energy [MeV]"
    )
    name, title = "longitudinal_profile", "longitudinal profile"
    yield from _figures(evaluation, lambda _: look, name, title, section)


@shows("Width", rank=11)
def radial_by_energy(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the radial profile at three energies."""
    profile = evaluation.grid.profiles["radius"]
    look = _Look(
        profile.edges,
        lambda table: _mean(table.profiles["radius"]),
        f"distance from the middle [{profile.unit}]",
        "mean energy [MeV]",
    )
    yield from _figures(evaluation, lambda _: look, "profile_radius", "radial profile", section)


def _distribution(reference: ShowerTable, observable: Observable) -> _Look:
    values = reference.column(observable.name)
    binning = automatic_binning(values, "linear", is_count=observable.is_count)

    def shares(table: ShowerTable) -> tuple[FloatArray, FloatArray]:
        counts = binning.counts(table.column(observable.name))
        return counts / max(len(table), 1), np.sqrt(counts) / max(len(table), 1)

    x_label = axis_label(observable.symbol, observable.unit)
    return _Look(binning.edges, shares, x_label, "share per bin")


def _figures(
    evaluation: Evaluation,
    look_at: Callable[[ShowerTable], _Look],
    name: str,
    title: str,
    section: str,
) -> Iterator[ReportFigure]:
    ranges = energy_ranges(evaluation.reference_table.incident_energy)
    if not ranges:
        return
    figure, panels = small_ratio_panels(len(ranges))
    numbers: dict[str, list[Column]] = {}
    for (main, ratio), ends in zip(panels, ranges, strict=True):
        look = look_at(_within(evaluation.reference_table, ends))
        curves = sample_curves(evaluation, partial(_measured, look=look, ends=ends))
        draw_steps(main, look.edges, *curves)
        draw_ratio(ratio, look.edges, *curves)
        main.set_title(" to ".join(map(_short, ends)), loc="left", fontsize=11)
        main.set_ylabel(look.y_label)
        main.set_ylim(bottom=0)
        ratio.set_ylabel("ratio")
        ratio.set_xlabel(look.x_label)
        lowest: FloatArray = np.full(len(look.edges) - 1, ends[0])
        columns = {"energy_low_mev": lowest, **bin_numbers(look.edges, *curves)}
        for key, values in columns.items():
            numbers.setdefault(key, []).append(values)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper center", ncols=2)
    yield ReportFigure(
        name=f"{name}_by_energy",
        title=f"{title[0].upper()}{title[1:]} by incident energy",
        section=section,
        caption=f"The {title} of showers of low, middle and high incident energy. "
        f"{caption_tail(evaluation)}",
        figure=figure,
        numbers={key: np.concatenate(values) for key, values in numbers.items()},
        is_wide=True,
    )


def energy_ranges(incident_energy: FloatArray) -> list[tuple[float, float]]:
    """Give the lowest, the middle and the highest of the report's energy bins that are filled."""
    edges = energy_edges(incident_energy)
    if edges is None:
        return []
    counts = np.bincount(energy_bin(edges, incident_energy), minlength=len(edges) - 1)
    filled = np.flatnonzero(counts >= _FEWEST)
    places = np.linspace(0, len(filled) - 1, _NUM_SLICES).round().astype(int)
    chosen = np.unique(filled[places]) if len(filled) else filled
    return [(float(edges[index]), float(edges[index + 1])) for index in chosen]


def _within(table: ShowerTable, ends: tuple[float, float]) -> ShowerTable:
    """Keep the showers of an energy range, with the columns that are drawn here."""
    rows = np.flatnonzero((table.incident_energy >= ends[0]) & (table.incident_energy <= ends[1]))
    return replace(
        table,
        incident_energy=table.incident_energy[rows],
        observables={name: table.observables[name][rows] for name in _NEEDED},
        profiles={"radius": table.profiles["radius"][rows]},
    )


def _measured(
    table: ShowerTable, look: _Look, ends: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    return look.measure(_within(table, ends))


def _mean(values: npt.NDArray[np.floating[Any]]) -> tuple[FloatArray, FloatArray]:
    """Give means (bins,) with their errors; zeros without a shower."""
    number = max(len(values), 1)
    mean = values.sum(axis=0, dtype=np.float64) / number
    variance = (values.astype(np.float64) ** 2).sum(axis=0) / number - mean**2
    return mean, np.sqrt(np.maximum(variance, 0) / number)


def _short(energy: float) -> str:
    return format_energy(float(f"{energy:.3g}"))
