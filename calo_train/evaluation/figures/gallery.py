"""What the report shows, by section: every figure and table is one function under `@shows`.

Modules of this package are found by themselves, so a new figure is one function in one file:

    @shows("Depth")
    def my_figure(evaluation: Evaluation, section: str) -> Iterator[ReportFigure]:
        yield ReportFigure(...)

A function that has nothing to show for an evaluation yields nothing; empty sections are left out.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from calo_train.evaluation.figures.style import ReportFigure, house_style

if TYPE_CHECKING:
    from calo_train.evaluation.results import Evaluation

SECTIONS = (
    "Overview", "CaloChallenge", "Energy", "Cells", "Depth", "Width", "Correlations",
    "Classifiers", "Training data", "Timing", "Showers",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ReportTable:
    """A table with its file name, section and caption; all cells are words, as a reader sees them.

    The first `num_names` columns are texts, all others numbers. Rows in `own_rows` are those of
    the judged samples among others' results.
    """

    name: str
    title: str
    section: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_names: int = 1
    own_rows: frozenset[int] = frozenset()


Item = ReportFigure | ReportTable
Draw = Callable[["Evaluation", str], Iterable[Item]]
_DRAWN: dict[tuple[str, str], tuple[int, Draw]] = {}  # by section and name of the function


def shows(*sections: str, rank: int = 50) -> Callable[[Draw], Draw]:
    """Register a function for sections of the report; lower ranks come first inside each."""

    def register(draw: Draw) -> Draw:
        for section in sections:
            assert section in SECTIONS, section
            _DRAWN[section, f"{draw.__module__}.{draw.__name__}"] = (rank, draw)
        return draw

    return register


def report_items(evaluation: Evaluation) -> list[Item]:
    """Draw everything in the order of the report: by section, rank, and name of the function."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
    order = sorted(_DRAWN, key=lambda key: (SECTIONS.index(key[0]), _DRAWN[key][0], key[1]))
    with house_style():
        return [
            item
            for section, name in order
            for item in _DRAWN[section, name][1](evaluation, section)
        ]
