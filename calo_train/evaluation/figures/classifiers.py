"""ROC and calibration of classifiers, and what those that separate saw."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.figures.gallery import shows
from calo_train.evaluation.figures.images import PictureRow, axis_profiles, draw_shower_rows
from calo_train.evaluation.figures.style import (
    REFERENCE_COLOUR,
    SAMPLE_COLOURS,
    Column,
    ReportFigure,
    caption_tail,
    new_figure,
    suffix_of,
    words_of,
)
from calo_train.evaluation.observables import OBSERVABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from calo_train.evaluation.classifiers.results import ClassifierResult, Insight
    from calo_train.evaluation.results import Evaluation, SampleResult


@shows("Classifiers", rank=10)
def roc_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the ROC curves of the first training of every classifier of a sample."""
    for result in evaluation.samples:
        if not result.classifiers:
            continue
        figure, axes = _unit_square()
        for found, colour in zip(result.classifiers, cycle(SAMPLE_COLOURS), strict=False):
            run, floor = found.sample_runs[0].roc, found.floor_runs[0].roc
            axes.plot(run.false_positive, run.true_positive, color=colour, label=_label(found))
            axes.plot(floor.false_positive, floor.true_positive, color=colour, lw=0.8, alpha=0.6)
        axes.set_xlabel("share of sampled showers above the cut")
        axes.set_ylabel("share of reference showers above the cut")
        axes.legend(loc="lower right")
        yield ReportFigure(
            name=f"classifiers_roc{suffix_of(evaluation, result)}",
            title="ROC curves" + words_of(evaluation, result),
            section=section,
            caption="First training of each classifier on its test showers; thin lines are the "
            "floor, reference against reference, the dashed one is chance. "
            f"{caption_tail(evaluation)}",
            figure=figure,
            numbers=_roc_numbers(result.classifiers),
        )


@shows("Classifiers", rank=11)
def calibration_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw what calibrated scores promise against what they hold."""
    for result in evaluation.samples:
        if not result.classifiers:
            continue
        figure, axes = _unit_square()
        for found, colour in zip(result.classifiers, cycle(SAMPLE_COLOURS), strict=False):
            curve = found.sample_runs[0].calibration
            axes.errorbar(
                curve.mean_score, curve.share, yerr=curve.error, fmt="o-", ms=4, lw=1,
                color=colour, label=found.name,
            )  # fmt: skip
        axes.set_xlabel("calibrated score")
        axes.set_ylabel("share of reference showers")
        axes.legend(loc="upper left")
        yield ReportFigure(
            name=f"classifiers_calibration{suffix_of(evaluation, result)}",
            title="Calibration" + words_of(evaluation, result),
            section=section,
            caption="Test showers of the first training in ten bins of the score, with binomial "
            "errors; scores that are probabilities lie on the dashed line. "
            f"{caption_tail(evaluation)}",
            figure=figure,
            numbers=_calibration_numbers(result.classifiers),
        )


@shows("Classifiers", rank=20)
def attribution_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw what every classifier that separates has used, by layer and by observable."""
    for result, found, insight in _separating(evaluation):
        attribution = insight.attribution
        names = [*attribution.observables]
        figure = new_figure(11.0 if names else 6.2, 4.4)
        panels = figure.subplots(1, 2 if names else 1, squeeze=False)[0]
        layers = np.arange(len(attribution.layers))
        panels[0].bar(layers, attribution.layers, color=SAMPLE_COLOURS[0])
        panels[0].set_xlabel("layer")
        panels[0].set_ylabel(attribution.measure)
        panels[0].minorticks_off()
        if names:
            _draw_observables(panels[1], evaluation, insight)
        kinds = ["layer"] * len(layers) + ["observable"] * len(names)
        yield ReportFigure(
            name=f"classifier_{found.name}_saw{suffix_of(evaluation, result)}",
            title=f"What the classifier {found.name} saw" + words_of(evaluation, result),
            section=section,
            caption=f"{attribution.measure[0].upper()}{attribution.measure[1:]}, by layer"
            f"{' and by observable' if names else ''}, in the first training. It says what this "
            f"network used, not what alone would tell. {caption_tail(evaluation)}",
            figure=figure,
            numbers={
                "kind": kinds,
                "name": [*map(str, layers), *names],
                "importance": [*attribution.layers.tolist(), *attribution.observables.values()],
            },
            is_wide=bool(names),
        )


@shows("Classifiers", rank=30)
def surest_figures(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
    """Draw the showers that each separating classifier was surest of."""
    if not axis_profiles(evaluation):
        return
    for result, found, insight in _separating(evaluation):
        rows = [
            PictureRow(label, shown.energies, shown.incident_energy, shown.scores)
            for label, shown in (
                ("reference", insight.reference),
                (result.showers.label, insight.sample),
            )
        ]
        figure, numbers = draw_shower_rows(evaluation, rows)
        yield ReportFigure(
            name=f"classifier_{found.name}_surest{suffix_of(evaluation, result)}",
            title=f"Showers that {found.name} was surest of" + words_of(evaluation, result),
            section=section,
            caption="Test showers of either class with the most extreme scores in the first "
            "training; a score is the probability of the reference. "
            f"{caption_tail(evaluation)}",
            figure=figure,
            numbers=numbers,
            is_wide=True,
        )


def _separating(
    evaluation: Evaluation,
) -> Iterator[tuple[SampleResult, ClassifierResult, Insight]]:
    for result in evaluation.samples:
        for found in result.classifiers:
            if found.insight is not None:
                yield result, found, found.insight


def _unit_square() -> tuple[Figure, Axes]:
    """Make a panel of shares with its diagonal."""
    figure = new_figure(6.2, 4.8)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=REFERENCE_COLOUR, lw=1, ls="--")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return figure, axes


def _label(found: ClassifierResult) -> str:
    reduced = ", reduced" if found.protocol.is_reduced else ""
    return f"{found.name}{reduced}: AUC {found.auc[0]:.3f} ± {found.auc[1]:.3f}"


def _draw_observables(axes: Axes, evaluation: Evaluation, insight: Insight) -> None:
    found = sorted(insight.attribution.observables.items(), key=lambda entry: entry[1])
    titles = [_title(evaluation, name) for name, _ in found]
    axes.barh(range(len(found)), [value for _, value in found], color=SAMPLE_COLOURS[1])
    axes.set_yticks(range(len(found)), titles)
    axes.set_xlabel(insight.attribution.measure)
    axes.tick_params(axis="y", which="both", length=0)
    axes.minorticks_off()


def _title(evaluation: Evaluation, name: str) -> str:
    return (
        OBSERVABLES[name].title_of(evaluation.grid) if name in OBSERVABLES else "incident energy"
    )


def _roc_numbers(results: tuple[ClassifierResult, ...]) -> dict[str, Column]:
    numbers: dict[str, Column] = {
        "share_of_sample": results[0].sample_runs[0].roc.false_positive,
    }
    for found in results:
        numbers[found.name] = found.sample_runs[0].roc.true_positive
        numbers[f"{found.name} floor"] = found.floor_runs[0].roc.true_positive
    return numbers


def _calibration_numbers(results: tuple[ClassifierResult, ...]) -> dict[str, Column]:
    curves = {found.name: found.sample_runs[0].calibration for found in results}
    return {
        "classifier": [name for name, curve in curves.items() for _ in curve.counts],
        "mean_score": np.concatenate([curve.mean_score for curve in curves.values()]),
        "share_of_reference": np.concatenate([curve.share for curve in curves.values()]),
        "error": np.concatenate([curve.error for curve in curves.values()]),
        "num_showers": np.concatenate([curve.counts for curve in curves.values()]),
    }
