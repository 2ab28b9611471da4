"""One self-contained, light HTML page of an evaluation: no script, no network, images inlined."""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calo_train.evaluation.figures import SECTIONS, all_figures
from calo_train.evaluation.figures.style import ReportFigure, house_style, incident_words
from calo_train.evaluation.floor import VERDICTS, Metric, verdict_of
from calo_train.evaluation.words import significance_words, with_error
from calo_train.quantities import format_duration, format_energy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from calo_train.evaluation.report_folder import ReportFolder
    from calo_train.evaluation.results import Evaluation, ObservableResult, SampleResult

_FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 140},
    "pdf": {"metadata": {"CreationDate": None}},  # equal inputs, equal file
}
_PIXELS_PER_INCH = 86  # two figures of 6.2 inches beside each other fill the page
_VERDICT_STYLES = dict(zip(VERDICTS, ("good", "good", "fair", "poor"), strict=True))


@dataclass(frozen=True)
class Card:
    """A headline number with what it stands beside."""

    label: str
    value: str
    detail: str
    style: str = "plain"


@dataclass(frozen=True)
class _Picture:
    """A figure as the page shows it."""

    name: str
    title: str
    section: str
    caption: str
    source: str  # data URI
    width: int  # in CSS pixels, so that texts of all figures look alike
    is_wide: bool


def write_report(folder: ReportFolder, evaluation: Evaluation, metrics: Mapping[str, Any]) -> Path:
    """Draw all figures and write report.html, metrics.json and figures/; give the page's path."""
    files: dict[str, bytes] = {}
    pictures = []
    for figure in all_figures(evaluation):
        rendered = render_figure(figure)
        files |= rendered
        pictures.append(_picture(figure, rendered[f"{figure.name}.png"]))
    page = render_page(evaluation, metrics, pictures)
    folder.write(page, metrics, files)
    return folder.page


def render_figure(figure: ReportFigure) -> dict[str, bytes]:
    """Give a figure as PNG and PDF and its numbers as CSV, by file name."""
    files = {}
    with house_style():
        for suffix, options in _FORMATS.items():
            buffer = io.BytesIO()
            figure.figure.savefig(buffer, format=suffix, facecolor="white", **options)
            files[f"{figure.name}.{suffix}"] = buffer.getvalue()
            if figure.figure.get_layout_engine() is not None:
                figure.figure.set_layout_engine("none")  # laid out once for both files
    files[f"{figure.name}.csv"] = _as_csv(figure).encode()
    return files


def render_page(
    evaluation: Evaluation, metrics: Mapping[str, Any], pictures: Sequence[_Picture]
) -> str:
    """Fill the template; every text is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("calo_train.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["metric"] = _metric_words
    environment.filters["share"] = _format_share
    environment.filters["sigma"] = significance_words
    environment.filters["energy"] = format_energy
    environment.filters["duration"] = format_duration
    return environment.get_template("report.html.j2").render(
        title=f"{_names(evaluation)} against {evaluation.reference.label}",
        evaluation=evaluation,
        metrics=metrics,
        particles=incident_words(evaluation),
        cards={result.showers.label: summary_cards(result) for result in evaluation.samples},
        sections=[
            (section, [picture for picture in pictures if picture.section == section])
            for section in SECTIONS
        ],
        style_of=_VERDICT_STYLES,
        verdict_of=verdict_of,
    )


def summary_cards(result: SampleResult) -> list[Card]:
    """Give the headline of a sample: verdict count, worst observable, classifier, validity."""
    entries = result.observables
    close = [entry for entry in entries if entry.verdict != VERDICTS[-1]]
    worst = result.ranking[0]
    cards = [
        Card(
            "observables within 3 sigma of their floor",
            f"{len(close)} of {len(entries)}",
            _beyond_words(entries),
            "good" if len(close) == len(entries) else "poor",
        ),
        Card(
            "differs most",
            worst.title,
            f"{worst.verdict} ({significance_words(worst.significance)})",
            _VERDICT_STYLES[worst.verdict],
        ),
    ]
    if result.classifier is not None:
        auc, floor = result.classifier.auc, result.classifier.floor
        cards.append(
            Card(
                "classifier AUC",
                f"{auc[0]:.3f} ± {auc[1]:.3f}",
                f"floor {floor[0]:.3f} ± {result.classifier.floor_error:.3f}; "
                f"{result.classifier.num_per_class} showers a class",
                _VERDICT_STYLES[verdict_of(result.classifier.significance)],
            )
        )
    health = result.table.health
    cards.append(
        Card(
            "invalid showers",
            f"{health.num_invalid} of {health.num_read}",
            f"{health.num_empty} without any energy, kept",
            "poor" if health.num_invalid else "plain",
        )
    )
    return cards


def _metric_words(metric: Metric, *, of_floor: bool = False) -> str:
    if of_floor:
        return with_error(metric.floor, metric.floor_error)
    return with_error(metric.value, metric.error)


def _format_share(share: float) -> str:
    return f"{100 * share:.2g} %" if share else "0"


def _beyond_words(entries: Sequence[ObservableResult]) -> str:
    counts = [sum(entry.verdict == verdict for entry in entries) for verdict in VERDICTS]
    return f"{counts[0]} within 1, {counts[1]} within 2, {counts[2]} within 3, {counts[3]} above"


def _names(evaluation: Evaluation) -> str:
    return ", ".join(result.showers.label for result in evaluation.samples)


def _picture(figure: ReportFigure, png: bytes) -> _Picture:
    source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    width = round(_PIXELS_PER_INCH * figure.figure.get_figwidth())
    return _Picture(
        figure.name,
        figure.title,
        figure.section,
        figure.caption,
        source,
        width,
        figure.is_wide,
    )


def _as_csv(figure: ReportFigure) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(figure.numbers)
    writer.writerows(
        [f"{value:.8g}" if isinstance(value, float) else value for value in row]
        for row in zip(*figure.numbers.values(), strict=True)
    )
    return text.getvalue()
