"""Several models in one table: the same numbers in one row, the best of them marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.evaluation.figures.gallery import ReportTable, shows
from calo_train.evaluation.figures.style import caption_tail
from calo_train.evaluation.words import significance_words, with_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calo_train.evaluation.floor import Metric
    from calo_train.evaluation.results import Evaluation, SampleResult

_BEST = "★ "


@shows("Overview", rank=5)
def models_table(evaluation: Evaluation, section: str) -> Iterator[ReportTable]:
    """Put the models side by side; nothing for a single one."""
    if len(evaluation.samples) < 2:
        return
    rows = _rows(evaluation)
    yield ReportTable(
        name="models",
        title="Models side by side",
        section=section,
        caption=f"Separation powers, {evaluation.size} showers against {evaluation.size}, with "
        "sigma above the floor in brackets; what tells the models apart most comes first. A star "
        "marks the smallest of those numbers that exceed the floor by 1 sigma for some model. "
        + caption_tail(evaluation),
        header=["", "floor", *(result.showers.label for result in evaluation.samples)],
        rows=rows,
    )


def _rows(evaluation: Evaluation) -> list[list[str]]:
    compared = [
        [_named(result)[title] for result in evaluation.samples]
        for title in _named(evaluation.samples[0])
    ]
    titles = list(_named(evaluation.samples[0]))
    found = sorted(
        zip(titles, compared, strict=True),
        key=lambda entry: -max(metric.significance for metric in entry[1]),
    )
    return [[title, _floor_words(metrics[0]), *_value_words(metrics)] for title, metrics in found]


def _named(result: SampleResult) -> dict[str, Metric]:
    found = {entry.title: entry.separation for entry in result.observables}
    return found | {"correlations, mean |difference|": result.correlations}


def _floor_words(metric: Metric) -> str:
    return with_error(metric.floor, metric.floor_error)


def _value_words(metrics: list[Metric]) -> list[str]:
    differs = any(metric.significance > 1 for metric in metrics)
    best = min(metric.value for metric in metrics)
    return [
        f"{_BEST if differs and metric.value == best else ''}"
        f"{with_error(metric.value, metric.error)} ({significance_words(metric.significance)})"
        for metric in metrics
    ]
