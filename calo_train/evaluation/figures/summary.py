"""Distances beside their floors at a glance, separation by layer, correlation matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.figures.gallery import shows
from calo_train.evaluation.figures.style import (
    SAMPLE_COLOURS,
    Column,
    FloatArray,
    ReportFigure,
    caption_tail,
    new_figure,
    suffix_of,
    words_of,
    write_header,
)
from calo_train.evaluation.moments import CORRELATED, correlation_columns, correlation_matrix
from calo_train.evaluation.observables import OBSERVABLES, Observable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

    from calo_train.evaluation.results import Evaluation, ObservableResult, SampleResult

_BAND = "#bdbdbd"


@shows("Overview", rank=10)
def overview_figure(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw all separation powers beside their floors."""
    first = evaluation.samples[0]
    figure = new_figure(8.4, 0.34 * len(first.observables) + 1.5)
    axes = figure.subplots()
    # Sorted by how far any sample lies above its floor, the farthest on top.
    farthest = [
        max(entry.significance for entry in entries)
        for entries in zip(*(result.observables for result in evaluation.samples), strict=True)
    ]
    rows = np.argsort(np.argsort(farthest))
    _draw_floor(axes, list(first.observables), rows)
    for index, result in enumerate(evaluation.samples):
        offset = 0.5 * ((index + 0.5) / len(evaluation.samples) - 0.5)
        axes.errorbar(
            [entry.separation.value for entry in result.observables],
            rows + offset,
            xerr=[entry.separation.error for entry in result.observables],
            fmt="o", ms=5, elinewidth=1.2, label=result.showers.label,
            color=SAMPLE_COLOURS[index % len(SAMPLE_COLOURS)],
        )  # fmt: skip
    axes.set_yticks(rows, [f"{entry.title}" for entry in first.observables])
    axes.tick_params(axis="y", which="both", length=0)
    axes.minorticks_off()
    axes.set_xscale("log")
    axes.set_xlabel(f"separation power, {evaluation.size} showers against {evaluation.size}")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)
    figure.suptitle(
        evaluation.reference.geometry.name, x=0.01, ha="left", fontweight="bold", fontsize=11
    )
    yield ReportFigure(
        name="overview",
        title="Separation powers and their floors",
        section=section,
        caption="Separation power of every observable. Grey: the floor, reference against "
        f"reference, one and two standard deviations. {caption_tail(evaluation)}",
        figure=figure,
        numbers=_entry_numbers(evaluation, [result.observables for result in evaluation.samples]),
        is_wide=True,
    )


@shows("Energy", "Cells", "Depth", "Width", rank=41)
def layer_separation_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the separation power by layer of each observable of layers."""
    for observable in OBSERVABLES.values():
        is_drawn = observable.is_headline and observable.name in evaluation.binnings
        if is_drawn and observable.section == section and observable.is_per_layer:
            yield _layer_separation_figure(evaluation, observable)


def _layer_separation_figure(evaluation: Evaluation, observable: Observable) -> ReportFigure:
    """Draw the separation power of every layer with its floor."""
    figure = new_figure(6.2, 4.4)
    axes = figure.subplots()
    title = observable.title_of(evaluation.grid)
    columns = [result.layers_of(observable.name) for result in evaluation.samples]
    entries = columns[0]
    layers = np.asarray([entry.layer for entry in entries])
    floor = np.asarray([entry.separation.floor for entry in entries])
    spread = np.asarray([entry.separation.floor_error for entry in entries])
    for width, alpha in ((2, 0.4), (1, 0.6)):
        axes.fill_between(
            layers, np.maximum(floor - width * spread, 0), floor + width * spread, color=_BAND,
            alpha=alpha, lw=0, step="mid",
            label="floor ± 1, 2 standard deviations" if width == 1 else None,
        )  # fmt: skip
    for index, (result, members) in enumerate(zip(evaluation.samples, columns, strict=True)):
        axes.errorbar(
            layers,
            [entry.separation.value for entry in members],
            yerr=[entry.separation.error for entry in members],
            fmt="o", ms=4, elinewidth=1.1, label=result.showers.label,
            color=SAMPLE_COLOURS[index % len(SAMPLE_COLOURS)],
        )  # fmt: skip
    axes.set_xlim(-0.5, evaluation.reference.geometry.num_layers - 0.5)
    axes.set_ylim(0, 1.45 * axes.get_ylim()[1])
    axes.set_xlabel("layer")
    axes.set_ylabel("separation power")
    write_header(axes, evaluation)
    axes.legend(loc="upper right")
    return ReportFigure(
        name=f"{observable.name}_separation",
        title=f"{title[0].upper()}{title[1:]}, separation power",
        section=observable.section,
        caption=f"Separation power of the {title}, layer by layer, {evaluation.size} showers "
        f"against {evaluation.size}. {caption_tail(evaluation)}",
        figure=figure,
        numbers=_entry_numbers(evaluation, columns),
    )


@shows("Correlations", rank=10)
def correlations_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the correlation matrices of every sample."""
    for result in evaluation.samples:
        yield _correlations_figure(evaluation, result, section)


def _correlations_figure(
    evaluation: Evaluation, result: SampleResult, section: str
) -> ReportFigure:
    """Draw the correlation matrices of reference and sample and their difference."""
    reference = correlation_matrix(correlation_columns(evaluation.reference_table))
    sample = correlation_matrix(correlation_columns(result.table))
    figure = new_figure(12.4, 4.4)
    panels = figure.subplots(1, 3)
    labels = [_symbol(evaluation, name) for name in CORRELATED]
    images: tuple[tuple[str, FloatArray, float], ...] = (
        ("reference", reference, 1.0),
        (result.showers.label, sample, 1.0),
        ("difference", sample - reference, 0.2),
    )
    for axes, (title, matrix, limit) in zip(panels, images, strict=True):
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=9)
        axes.set_yticks(range(len(labels)), labels if axes is panels[0] else [], fontsize=9)
        axes.tick_params(which="both", length=0)
        axes.minorticks_off()
        axes.set_title(title, fontsize=11)
        figure.colorbar(image, ax=axes, shrink=0.82, pad=0.02)
    rows, columns = (index.ravel() for index in np.indices(reference.shape))
    numbers: dict[str, Column] = {
        "first": [CORRELATED[row] for row in rows],
        "second": [CORRELATED[column] for column in columns],
        "reference": reference.ravel(),
        "sample": sample.ravel(),
    }
    return ReportFigure(
        name="correlations" + suffix_of(evaluation, result),
        title="Correlations" + words_of(evaluation, result),
        section=section,
        caption="Pearson correlations of shower observables: first and second moments, energies, "
        f"hits and the shares of the thirds of the depth. {caption_tail(evaluation)}",
        figure=figure,
        numbers=numbers,
        is_wide=True,
    )


def _draw_floor(axes: Axes, entries: list[ObservableResult], rows: npt.NDArray[np.int64]) -> None:
    for entry, row in zip(entries, rows, strict=True):
        floor, spread = entry.separation.floor, entry.separation.floor_error
        for width, alpha in ((2, 0.45), (1, 0.7)):
            low = max(floor - width * spread, floor / 20)
            axes.barh(
                row, floor + width * spread - low, left=low, height=0.62, color=_BAND, alpha=alpha,
                lw=0, label="floor" if width == 1 and entry is entries[0] else None,
            )  # fmt: skip


def _entry_numbers(
    evaluation: Evaluation, columns: list[tuple[ObservableResult, ...]]
) -> dict[str, Column]:
    numbers: dict[str, Column] = {
        "observable": [entry.name for entry in columns[0]],
        "floor": [entry.separation.floor for entry in columns[0]],
        "floor_error": [entry.separation.floor_error for entry in columns[0]],
    }
    for result, entries in zip(evaluation.samples, columns, strict=True):
        label = result.showers.label
        numbers[label] = [entry.separation.value for entry in entries]
        numbers[f"{label} error"] = [entry.separation.error for entry in entries]
    return numbers


def _symbol(evaluation: Evaluation, name: str) -> str:
    if name == "incident_energy":
        return r"$E_\mathrm{inc}$"
    observable = OBSERVABLES[name]
    return f"${observable.in_words_of(evaluation.grid, observable.symbol)}$"
