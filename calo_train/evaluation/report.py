"""One self-contained, light HTML page of an evaluation: no network, everything inlined."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from calo_train.evaluation.cards import VERDICT_STYLES, summary_cards
from calo_train.evaluation.event_display import event_display, page_data
from calo_train.evaluation.figures import SECTIONS, ReportTable, report_items
from calo_train.evaluation.figures.events import DISPLAY_FIGURE
from calo_train.evaluation.figures.style import incident_words
from calo_train.evaluation.floor import Metric, verdict_of
from calo_train.evaluation.rendering import Picture, render_items
from calo_train.evaluation.words import (
    share_words,
    significance_words,
    three_digits,
    with_error,
)
from calo_train.quantities import format_duration, format_energy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jinja2 import Environment

    from calo_train.evaluation.report_folder import ReportFolder
    from calo_train.evaluation.results import Evaluation


def write_report(folder: ReportFolder, evaluation: Evaluation, metrics: Mapping[str, Any]) -> Path:
    """Draw all figures and write report.html, metrics.json and figures/; give the page's path."""
    shown, files = render_items(report_items(evaluation))
    folder.write(render_page(evaluation, metrics, shown), metrics, files)
    return folder.page


def write_metrics(
    folder: ReportFolder, evaluation: Evaluation, metrics: Mapping[str, Any]
) -> Path:
    """Write metrics.json without drawing anything; give its path."""
    del evaluation  # of which figures would be drawn
    folder.write_metrics(metrics)
    return folder.metrics


def render_page(
    evaluation: Evaluation, metrics: Mapping[str, Any], shown: Sequence[Picture | ReportTable]
) -> str:
    """Fill the template; every text is escaped."""
    by_section = {
        section: [item for item in shown if item.section == section] for section in SECTIONS
    }
    has_display = any(item.name == DISPLAY_FIGURE for item in shown)
    environment = _environment()
    template = environment.get_template("report.html.j2")
    return template.render(
        title=f"{_names(evaluation)} against {evaluation.reference.label}",
        evaluation=evaluation,
        metrics=metrics,
        particles=incident_words(evaluation),
        cards=[(result.showers.label, summary_cards(result)) for result in evaluation.samples],
        sections={section: items for section, items in by_section.items() if items},
        style_of=VERDICT_STYLES,
        verdict_of=verdict_of,
        display=page_data(event_display(evaluation)) if has_display else None,
        **_script(environment),
    )


def _script(environment: Environment) -> dict[str, str]:
    """Give the display's script and its hash; the page's policy lets nothing else run."""
    from markupsafe import Markup

    assert environment.loader is not None
    text, _, _ = environment.loader.get_source(environment, "event_display.js")
    digest = hashlib.sha256(text.encode()).digest()
    return {
        "script": Markup(text),  # noqa: S704 - a file of this package
        "script_hash": base64.b64encode(digest).decode("ascii"),
    }


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("calo_train.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": _metric_words,
        "share": share_words,
        "digits": three_digits,
        "sigma": significance_words,
        "energy": format_energy,
        "duration": format_duration,
        "anchor": _anchor,
    }
    environment.tests["table"] = lambda item: isinstance(item, ReportTable)
    return environment


def _metric_words(metric: Metric, *, of_floor: bool = False) -> str:
    if of_floor:
        return with_error(metric.floor, metric.floor_error)
    return with_error(metric.value, metric.error)


def _anchor(section: str) -> str:
    return section.lower().replace(" ", "-")


def _names(evaluation: Evaluation) -> str:
    return ", ".join(result.showers.label for result in evaluation.samples)
