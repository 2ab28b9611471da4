"""Mean profiles along the depth, the transverse axes and the radius; response and resolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.figures.distributions import bin_numbers
from calo_train.evaluation.figures.gallery import shows
from calo_train.evaluation.figures.style import (
    Curve,
    FloatArray,
    ReportFigure,
    add_legend,
    caption_tail,
    draw_ratio,
    draw_steps,
    new_figure,
    ratio_figure,
    sample_curves,
    write_header,
)
from calo_train.evaluation.moments import EnergyBins, energy_edges, response_by_energy
from calo_train.quantities import MEV_PER_GEV

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.axes import Axes

    from calo_train.evaluation.results import Evaluation
    from calo_train.evaluation.table import ShowerTable

_LOG_SPAN = 20.0  # profiles that fall further are drawn logarithmically


@shows("Depth", rank=10)
def longitudinal_figure(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the mean energy of each layer."""
    num_layers = evaluation.reference.geometry.num_layers
    edges: FloatArray = np.linspace(-0.5, num_layers - 0.5, num_layers + 1)
    yield _profile_figure(
        evaluation,
        edges,
        lambda table: table.observables["layer_energy"].astype(np.float64, copy=False),
        name="longitudinal_profile",
        title="Longitudinal profile",
        words="layer",
        label="layer",
        section=section,
    )


@shows("Width", rank=10)
def transverse_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the profile along every transverse axis and the radius."""
    for axis in evaluation.grid.profiles:
        yield _transverse_figure(evaluation, axis, section)


def _transverse_figure(evaluation: Evaluation, axis: str, section: str) -> ReportFigure:
    """Draw the mean energy along a transverse axis or the radius, summed over all layers."""
    profile = evaluation.grid.profiles[axis]
    return _profile_figure(
        evaluation,
        profile.edges,
        lambda table: table.profiles[axis],
        name=f"profile_{axis}",
        title="Radial profile" if axis == "radius" else f"Profile along {axis}",
        words="radial bin" if axis == "radius" else f"cell along {axis}",
        label=f"distance from the middle [{profile.unit}]"
        if axis == "radius"
        else f"{axis} [{profile.unit}]",
        section=section,
    )


@shows("Energy", rank=10)
def response_figure(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw response and resolution against the incident energy; nothing without a spectrum."""
    edges = energy_edges(evaluation.reference_table.incident_energy)
    if edges is None:
        return
    edges_gev = edges / MEV_PER_GEV
    figure = new_figure(10.4, 5.0)
    panels = figure.subplots(2, 2, sharex=True, height_ratios=(3, 1))
    numbers = {}
    measures: tuple[
        tuple[str, str, Callable[[EnergyBins], tuple[FloatArray, FloatArray]]], ...
    ] = (
        ("response", r"$\mu_{90}$ of $E_\mathrm{vis}/E_\mathrm{inc}$", _response),
        ("resolution", r"$\sigma_{90}/\mu_{90}$ of $E_\mathrm{vis}/E_\mathrm{inc}$", _resolution),
    )
    for column, (name, label, measure) in enumerate(measures):
        curves = sample_curves(
            evaluation,
            lambda table, take=measure: _on_bins(table, edges, take),  # type: ignore[misc]
        )
        main, ratio = panels[0, column], panels[1, column]
        if edges[-1] / edges[0] > _LOG_SPAN:
            main.set_xscale("log")
        _draw_points(main, edges_gev, *curves)
        draw_ratio(ratio, edges_gev, *curves)
        main.set_ylabel(label)
        ratio.set_xlabel(r"$E_\mathrm{inc}$ [GeV]")
        for key, values in bin_numbers(edges_gev, *curves).items():
            numbers[key if key.startswith("bin_") else f"{name}: {key}"] = values
    write_header(panels[0, 0], evaluation)
    add_legend(panels[0, 1])
    yield ReportFigure(
        name="response_and_resolution",
        title="Response and resolution",
        section=section,
        caption="Mean and standard deviation of the shortest interval that holds 90 % of the "
        f"showers, in bins of incident energy. {caption_tail(evaluation)}",
        figure=figure,
        numbers=numbers,
        is_wide=True,
    )


def _profile_figure(
    evaluation: Evaluation,
    edges: FloatArray,
    column: Callable[[ShowerTable], FloatArray],
    *,
    name: str,
    title: str,
    words: str,
    label: str,
    section: str,
) -> ReportFigure:
    curves = sample_curves(evaluation, lambda table: _mean(column(table)))
    figure, main, ratio = ratio_figure()
    draw_steps(main, edges, *curves)
    draw_ratio(ratio, edges, *curves)
    positive = curves[0].values[curves[0].values > 0]
    if len(positive) and positive.max() / positive.min() > _LOG_SPAN:
        main.set_yscale("log")
        main.set_ylim(positive.min() / 2, positive.max() * 2)
    else:
        main.set_ylim(bottom=0)
    main.set_xlim(edges[0], edges[-1])
    main.set_ylabel(f"mean energy per {words} [MeV]")
    ratio.set_xlabel(label)
    write_header(main, evaluation)
    add_legend(main)
    return ReportFigure(
        name=name,
        title=title,
        section=section,
        caption=f"Mean energy per {words} with the error of the mean. {caption_tail(evaluation)}",
        figure=figure,
        numbers=bin_numbers(edges, *curves),
    )


def _mean(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    return values.mean(axis=0), values.std(axis=0) / np.sqrt(len(values))


def _on_bins(
    table: ShowerTable,
    edges: FloatArray,
    measure: Callable[[EnergyBins], tuple[FloatArray, FloatArray]],
) -> tuple[FloatArray, FloatArray]:
    """Put a measure on all bins; those with too few showers stay NaN."""
    bins = response_by_energy(table, edges)
    filled = np.searchsorted(edges, bins.centres, side="right") - 1
    values, errors = np.full(len(edges) - 1, np.nan), np.full(len(edges) - 1, np.nan)
    values[filled], errors[filled] = measure(bins)
    return values, errors


def _response(bins: EnergyBins) -> tuple[FloatArray, FloatArray]:
    intervals = bins.response
    return (
        np.asarray([interval.mean for interval in intervals]),
        np.asarray([interval.mean_error for interval in intervals]),
    )


def _resolution(bins: EnergyBins) -> tuple[FloatArray, FloatArray]:
    intervals = bins.response
    return (
        np.asarray([interval.deviation / interval.mean for interval in intervals]),
        np.asarray([interval.deviation_error / interval.mean for interval in intervals]),
    )


def _draw_points(axes: Axes, edges: FloatArray, reference: Curve, samples: list[Curve]) -> None:
    centres, half = (edges[:-1] + edges[1:]) / 2, np.diff(edges) / 2
    for curve in (reference, *samples):
        axes.errorbar(
            centres, curve.values, xerr=half, yerr=curve.errors, color=curve.colour,
            fmt="s" if curve is reference else "o", ms=4, elinewidth=1.1, label=curve.label,
            mfc="white" if curve is reference else curve.colour,
        )  # fmt: skip
