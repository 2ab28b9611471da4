"""Histograms of shower observables, layer energies and the cell spectrum, with ratio panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.coarse_cosine import EDGES
from calo_train.evaluation.distances import Binning
from calo_train.evaluation.figures.gallery import shows
from calo_train.evaluation.figures.style import (
    Column,
    Curve,
    FloatArray,
    ReportFigure,
    add_legend,
    axis_label,
    caption_tail,
    draw_ratio,
    draw_steps,
    ratio_figure,
    sample_curves,
    small_ratio_panels,
    write_header,
)
from calo_train.evaluation.observables import OBSERVABLES, Observable
from calo_train.quantities import format_energy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

    from calo_train.evaluation.coarse_cosine import CoarseCells
    from calo_train.evaluation.results import Evaluation
    from calo_train.evaluation.table import ShowerTable

_NUM_PANELS, _NUM_ENERGY_PANELS = 3, 6  # of layers spread over the depth
_EMPTY_WORDS = "; what is zero lies outside the logarithmic axis"


@shows("Energy", "Cells", "Depth", "Width", rank=30)
def observable_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the distribution of each single observable of a section."""
    for observable in OBSERVABLES.values():
        is_drawn = observable.is_headline and observable.name in evaluation.binnings
        if is_drawn and observable.section == section and not observable.is_per_layer:
            yield _observable_figure(evaluation, observable)


def _observable_figure(evaluation: Evaluation, observable: Observable) -> ReportFigure:
    """Draw a distribution, normalised to 1 over all showers."""
    name = observable.name
    title = observable.title_of(evaluation.grid)
    symbol = observable.in_words_of(evaluation.grid, observable.symbol)
    (binning,) = evaluation.binnings[name]
    curves = sample_curves(
        evaluation, lambda table: _shares(binning, table.column(name), len(table))
    )
    figure, main, ratio = ratio_figure()
    _draw_panel(main, ratio, binning, curves)
    main.set_ylabel("share of showers per bin")
    ratio.set_xlabel(axis_label(symbol, observable.unit))
    write_header(main, evaluation)
    add_legend(main)
    return ReportFigure(
        name=name,
        title=title[0].upper() + title[1:],
        section=observable.section,
        caption=f"Distribution of the {title}. {caption_tail(evaluation)}",
        figure=figure,
        numbers=bin_numbers(binning.edges, *curves),
    )


@shows("Energy", "Cells", "Depth", "Width", rank=40)
def layers_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw each observable of layers for some of them, spread over the depth."""
    for observable in OBSERVABLES.values():
        is_drawn = observable.is_headline and observable.name in evaluation.binnings
        if is_drawn and observable.section == section and observable.is_per_layer:
            yield _layers_figure(evaluation, observable)


def _layers_figure(evaluation: Evaluation, observable: Observable) -> ReportFigure:
    binnings = evaluation.binnings[observable.name]
    num_panels = _NUM_ENERGY_PANELS if observable.name == "layer_energy" else _NUM_PANELS
    layers = np.unique(np.linspace(0, len(binnings) - 1, num_panels).round().astype(int))
    symbol = observable.in_words_of(evaluation.grid, observable.symbol)
    title = observable.title_of(evaluation.grid)
    figure, panels = small_ratio_panels(len(layers))
    numbers: dict[str, list[FloatArray]] = {}
    for (main, ratio), layer in zip(panels, layers.tolist(), strict=True):
        curves = _layer_curves(evaluation, binnings[layer], observable.name, layer)
        _draw_panel(main, ratio, binnings[layer], curves)
        main.set_title(f"layer {layer}", loc="left", fontsize=11)
        main.set_ylabel("share per bin")
        ratio.set_ylabel("ratio")
        ratio.set_xlabel(axis_label(symbol, observable.unit))
        for key, values in bin_numbers(binnings[layer].edges, *curves).items():
            numbers.setdefault(key, []).append(np.asarray(values))
        numbers.setdefault("layer", []).append(np.full(binnings[layer].num_bins, layer))
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper center", ncols=2)
    return ReportFigure(
        name=f"{observable.name}_of_layers",
        title=title[0].upper() + title[1:],
        section=observable.section,
        caption=f"Distribution of the {title}, for layers spread over the depth"
        f"{_EMPTY_WORDS if binnings[0].is_log else ''}. {caption_tail(evaluation)}",
        figure=figure,
        numbers={key: np.concatenate(values) for key, values in numbers.items()},
        is_wide=True,
    )


@shows("Cells", rank=10)
def spectrum_figure(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the spectrum of all cell energies above the threshold."""
    binning = Binning(evaluation.spectrum_edges, is_log=True)
    curves = sample_curves(evaluation, _spectrum)
    figure, main, ratio = ratio_figure()
    _draw_panel(main, ratio, binning, curves)
    main.set_yscale("log")
    positive = curves[0].values[curves[0].values > 0]
    if len(positive):
        main.set_ylim(positive.min() / 3, positive.max() * 3)
    threshold = evaluation.settings.threshold
    if threshold > 0:
        for axes in (main, ratio):
            axes.axvspan(threshold / 2, threshold, color="#f0e442", alpha=0.35, lw=0)
            axes.axvline(threshold, color=curves[0].colour, ls="--", lw=1)
        main.set_xlim(threshold / 1.6, None)
        main.text(
            threshold * 1.15, 0.96, f"threshold {format_energy(threshold)}", rotation=90, va="top",
            fontsize=9, transform=main.get_xaxis_transform(),
        )  # fmt: skip
    main.set_ylabel("cells per shower and bin")
    ratio.set_xlabel(axis_label(r"E_\mathrm{cell}", "MeV"))
    write_header(main, evaluation)
    add_legend(main, headroom=1.3)
    yield ReportFigure(
        name="cell_energy_spectrum",
        title="Cell energy spectrum",
        section=section,
        caption="Spectrum of all cell energies that the threshold keeps; the shaded part is below "
        f"it. {caption_tail(evaluation)}",
        figure=figure,
        numbers=bin_numbers(binning.edges, *curves),
    )


@shows("Depth", rank=45)
def coarse_cosine_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the cosine between neighbouring layers for each choice of coarse voxels."""
    for cells in evaluation.settings.coarse:
        yield _coarse_cosine_figure(evaluation, cells, section)


def _coarse_cosine_figure(
    evaluation: Evaluation, cells: CoarseCells, section: str
) -> ReportFigure:
    binning = Binning(EDGES, is_log=False)
    curves = sample_curves(
        evaluation, lambda table: _mean_counts(table.coarse_cosines[cells.name])
    )
    figure, main, ratio = ratio_figure()
    _draw_panel(main, ratio, binning, curves)
    main.set_yscale("log")
    positive = curves[0].values[curves[0].values > 0]
    if len(positive):
        main.set_ylim(positive.min() / 3, positive.max() * 3)
    main.set_ylabel("pairs of layers per shower and bin")
    ratio.set_xlabel(r"$\rho$ of layers $l$, $l+1$")
    write_header(main, evaluation)
    add_legend(main, headroom=1.3)
    return ReportFigure(
        name=cells.name,
        title=cells.title[0].upper() + cells.title[1:],
        section=section,
        caption=f"The {cells.title}, over coarse voxels and showers; pairs with an empty layer "
        f"are left out. {caption_tail(evaluation)}",
        figure=figure,
        numbers=bin_numbers(binning.edges, *curves),
    )


def bin_numbers(edges: FloatArray, reference: Curve, samples: list[Curve]) -> dict[str, Column]:
    """Give what a binned figure shows as columns."""
    columns: dict[str, Column] = {
        "bin_low": edges[:-1],
        "bin_high": edges[1:],
        "reference": reference.values,
        "reference_error": reference.errors,
    }
    for curve in samples:
        name = curve.label.rpartition(" (")[0]
        columns |= {name: curve.values, f"{name} error": curve.errors}
    return columns


def _draw_panel(
    main: Axes, ratio: Axes, binning: Binning, curves: tuple[Curve, list[Curve]]
) -> None:
    if binning.is_log:
        main.set_xscale("log")
        ratio.set_xscale("log")
    draw_steps(main, binning.edges, *curves)
    draw_ratio(ratio, binning.edges, *curves)
    for axes in (main, ratio):
        axes.set_xlim(binning.edges[0], binning.edges[-1])
    main.set_ylim(bottom=0)


def _layer_curves(
    evaluation: Evaluation, binning: Binning, name: str, layer: int
) -> tuple[Curve, list[Curve]]:
    def make(table: Any) -> tuple[FloatArray, FloatArray]:
        return _shares(binning, table.column(name, layer), len(table))

    return sample_curves(evaluation, make)


def _shares(
    binning: Binning, values: FloatArray, num_showers: int
) -> tuple[FloatArray, FloatArray]:
    counts = binning.counts(values)
    return counts / num_showers, np.sqrt(counts) / num_showers


def _spectrum(table: ShowerTable) -> tuple[FloatArray, FloatArray]:
    return _mean_counts(table.spectrum)


def _mean_counts(found: npt.NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
    """Give means per shower and bin; entries of one shower are not independent, showers are."""
    counts = found[:, :-1].astype(np.float64)
    return counts.mean(axis=0), counts.std(axis=0) / np.sqrt(len(counts))
