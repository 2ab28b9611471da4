"""All figures of an evaluation, in the order of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.evaluation.figures.distributions import (
    layer_energies_figure,
    observable_figure,
    spectrum_figure,
)
from calo_train.evaluation.figures.images import (
    average_shower_figure,
    axis_profiles,
    single_showers_figure,
)
from calo_train.evaluation.figures.profiles import (
    longitudinal_figure,
    response_figure,
    transverse_figure,
)
from calo_train.evaluation.figures.style import ReportFigure, house_style
from calo_train.evaluation.figures.summary import (
    correlations_figure,
    layer_separation_figure,
    overview_figure,
)
from calo_train.evaluation.observables import OBSERVABLES

if TYPE_CHECKING:
    from calo_train.evaluation.results import Evaluation

__all__ = ["SECTIONS", "ReportFigure", "all_figures"]

SECTIONS = ("Overview", "Energy", "Cells", "Depth", "Width", "Correlations", "Showers")


def all_figures(evaluation: Evaluation) -> list[ReportFigure]:
    """Draw everything, sorted by section of the report."""
    with house_style():
        response = response_figure(evaluation, "Energy")
        figures = [
            overview_figure(evaluation, "Overview"),
            *([response] if response is not None else []),
            spectrum_figure(evaluation, "Cells"),
            longitudinal_figure(evaluation, "Depth"),
            layer_separation_figure(evaluation, "Depth"),
            layer_energies_figure(evaluation, "Depth"),
            *(transverse_figure(evaluation, name, "Width") for name in evaluation.grid.profiles),
        ]
        figures += [
            observable_figure(evaluation, observable.name, observable.section)
            for observable in OBSERVABLES.values()
            if not observable.is_per_layer
        ]
        for result in evaluation.samples:
            figures.append(correlations_figure(evaluation, result, "Correlations"))
            if axis_profiles(evaluation):
                figures.append(average_shower_figure(evaluation, result, "Showers"))
                figures.append(single_showers_figure(evaluation, result, "Showers"))
    return sorted(figures, key=lambda figure: SECTIONS.index(figure.section))
