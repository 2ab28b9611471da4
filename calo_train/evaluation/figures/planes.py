"""Pairs of observables in a plane: reference, sample, and where they differ.

The pairs are those of the field's papers: response against incident energy (2302.11594), hits and
depth against visible energy (2005.05334).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.figures.gallery import shows
from calo_train.evaluation.figures.style import (
    Column,
    FloatArray,
    ReportFigure,
    axis_label,
    caption_tail,
    new_figure,
    suffix_of,
    words_of,
)
from calo_train.evaluation.observables import OBSERVABLES
from calo_train.quantities import MEV_PER_GEV

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

    from calo_train.evaluation.results import Evaluation, SampleResult
    from calo_train.evaluation.table import ShowerTable

_NUM_BINS = 24
_LIMIT = 4.0  # standard deviations
_LOG_SPAN = 30.0
_PAIRS = (
    ("incident_energy", "visible_fraction"),
    ("visible_energy", "num_hits"),
    ("visible_energy", "centre_of_gravity_z"),
)


@shows("Correlations", rank=20)
def planes_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the three pairs of every sample."""
    for result in evaluation.samples:
        yield _planes_figure(evaluation, result, section)


def _planes_figure(evaluation: Evaluation, result: SampleResult, section: str) -> ReportFigure:
    figure = new_figure(11.4, 3.15 * len(_PAIRS) + 0.3)
    panels = figure.subplots(len(_PAIRS), 3, squeeze=False, sharex="row", sharey="row")
    numbers: dict[str, list[Column]] = {}
    for row, pair in zip(panels, _PAIRS, strict=True):
        edges = tuple(_edges(_values(evaluation.reference_table, name)) for name in pair)
        counts = [
            _counts(table, pair, edges) for table in (evaluation.reference_table, result.table)
        ]
        difference = pull(*counts)
        _draw_row(row, edges, [*(each / max(each.sum(), 1) for each in counts), difference])
        for axes in row:
            axes.set_xlabel(_label(evaluation, pair[0]))
        row[0].set_ylabel(_label(evaluation, pair[1]))
        _add_numbers(numbers, pair, edges, [*counts, difference])
    for axes, words in zip(panels[0], ("reference", result.showers.label, "pull"), strict=True):
        axes.set_title(words, fontsize=11)
    return ReportFigure(
        name=f"planes{suffix_of(evaluation, result)}",
        title="Pairs of observables" + words_of(evaluation, result),
        section=section,
        caption="Share of showers per bin, and the difference of sample and reference in standard "
        "deviations of its statistical error; showers outside the reference's central 99.8 % are "
        f"not drawn. {caption_tail(evaluation)}",
        figure=figure,
        numbers={key: np.concatenate(values) for key, values in numbers.items()},
        is_wide=True,
    )


def pull(reference: FloatArray, sample: FloatArray) -> FloatArray:
    """Give the difference of two count arrays, each as shares, over its error; NaN if both are 0.

    Poisson errors; an empty bin beside a filled one has the error of one shower.
    """
    shares = [counts / max(counts.sum(), 1) for counts in (reference, sample)]
    variances = [
        np.maximum(counts, 1) / max(counts.sum(), 1) ** 2 for counts in (reference, sample)
    ]
    difference = (shares[1] - shares[0]) / np.sqrt(variances[0] + variances[1])
    return np.where(reference + sample > 0, difference, np.nan)


def _values(table: ShowerTable, name: str) -> FloatArray:
    if name == "incident_energy":
        return table.incident_energy / MEV_PER_GEV
    return table.column(name)


def _edges(values: FloatArray) -> FloatArray:
    low, high = (float(end) for end in np.quantile(values, (0.001, 0.999)))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    if low > 0 and high / low > _LOG_SPAN:
        return np.geomspace(low, high, _NUM_BINS + 1)
    return np.linspace(low, high, _NUM_BINS + 1)


def _counts(
    table: ShowerTable, pair: tuple[str, str], edges: tuple[FloatArray, ...]
) -> FloatArray:
    first, second = (_values(table, name) for name in pair)
    counts, _, _ = np.histogram2d(first, second, bins=list(edges))
    return np.asarray(counts, dtype=np.float64)


def _draw_row(row: list[Axes], edges: tuple[FloatArray, ...], images: list[FloatArray]) -> None:
    highest = max(float(image.max()) for image in images[:2])
    looks = [("viridis", 0.0, highest, "share of showers")] * 2
    looks.append(("RdBu_r", -_LIMIT, _LIMIT, "pull [standard deviations]"))
    for axes, image, (colours, low, high, label) in zip(row, images, looks, strict=True):
        is_drawn = np.isfinite(image) & ((image != 0) | (low < 0))
        shown = np.ma.masked_where(~is_drawn, image).T
        mesh = axes.pcolormesh(*edges, shown, cmap=colours, vmin=low, vmax=high, rasterized=True)
        for scale, ends in ((axes.set_xscale, edges[0]), (axes.set_yscale, edges[1])):
            if not np.allclose(np.diff(ends), ends[1] - ends[0]):
                scale("log")
        axes.figure.colorbar(mesh, ax=axes, label=label, pad=0.02)


def _label(evaluation: Evaluation, name: str) -> str:
    if name == "incident_energy":
        return axis_label(r"E_\mathrm{inc}", "GeV")
    observable = OBSERVABLES[name]
    return axis_label(observable.in_words_of(evaluation.grid, observable.symbol), observable.unit)


def _add_numbers(
    numbers: dict[str, list[Column]],
    pair: tuple[str, str],
    edges: tuple[FloatArray, ...],
    images: list[FloatArray],
) -> None:
    rows, columns = (index.ravel() for index in np.indices(images[0].shape))
    found: dict[str, Column] = {
        "x": np.repeat([pair[0]], len(rows)),
        "y": np.repeat([pair[1]], len(rows)),
        "x_low": edges[0][rows],
        "y_low": edges[1][columns],
        "reference": images[0].ravel(),
        "sample": images[1].ravel(),
        "pull": images[2].ravel(),
    }
    for key, values in found.items():
        numbers.setdefault(key, []).append(values)
