"""League tables: the CaloChallenge's published results with our own rows among them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from calo_train.evaluation.figures.gallery import ReportTable, shows
from calo_train.evaluation.league import (
    FLOOR_ROW,
    JOINT,
    SEPARATIONS,
    LeagueColumn,
    Measured,
    published_results,
)
from calo_train.evaluation.official import official_dataset
from calo_train.evaluation.words import three_digits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from calo_train.evaluation.results import Evaluation

_SOURCE = (
    "Published results of the CaloChallenge 2022 (arXiv:2410.21611, final tables of its "
    "organisers) on {size} Geant4 showers; the row Geant4 is reference against reference. Rows in "
    "bold are this report's and hold only what is defined alike. "
)
_CAUTION = (
    "Compare rows with care: the published ones are of the challenge's own Geant4 files, ours of "
    "the reference named above. On any other reference, or with fewer showers, they are context, "
    "not a ranking."
)
_SIZES = {"1-photons": "121,000", "1-pions": "120,800", "2": "100,000", "3": "100,000"}
_NOTHING = "-"


@shows("CaloChallenge", rank=10)
def league_tables(evaluation: Evaluation, section: str) -> Iterator[ReportTable]:
    """Give both tables for the challenge's detectors; nothing for others."""
    dataset = official_dataset(evaluation.reference.geometry)
    if dataset is None:
        return
    published = published_results(dataset.name)
    source = _SOURCE.format(size=_SIZES[dataset.name]) + _CAUTION
    for name, title, words, columns in (
        ("league_separations", "League of separation powers", _SEPARATION_WORDS, SEPARATIONS),
        ("league_joint", "League of classifiers, FPD, KPD and speed", _JOINT_WORDS, JOINT),
    ):
        rows = _sorted_rows(evaluation, published, columns)
        yield ReportTable(
            name=name,
            title=f"{title}, data set {dataset.name}",
            section=section,
            caption=f"{words} {source}",
            header=["submission", *(column.title for column in columns)],
            rows=[[label, *(_words(found) for found in numbers)] for label, numbers, _ in rows],
            own_rows=frozenset(index for index, (_, _, is_own) in enumerate(rows) if is_own),
        )


_SEPARATION_WORDS = "Separation powers in the challenge's bins, means over layers, times 1000."
_JOINT_WORDS = (
    "Classifiers of single showers, distances of high-level features, GPU time a shower."
)


def _sorted_rows(
    evaluation: Evaluation,
    published: Mapping[str, Mapping[str, Measured]],
    columns: Sequence[LeagueColumn],
) -> list[tuple[str, list[Measured | None], bool]]:
    """Sort by the first column: the floor first, rows without that number last.

    A sample that has none of the numbers is left out.
    """
    rows: list[tuple[str, list[Measured | None], bool]] = [
        (label, [_scaled(numbers.get(column.published), column) for column in columns], False)
        for label, numbers in published.items()
    ]
    for result in evaluation.samples:
        own = [None if column.own is None else column.own(result) for column in columns]
        scaled = [_scaled(found, column) for found, column in zip(own, columns, strict=True)]
        if any(found is not None for found in scaled):
            rows.append((result.showers.label, scaled, True))

    def place(row: tuple[str, list[Measured | None], bool]) -> tuple[bool, float]:
        first = row[1][0]
        return row[2] or row[0] != FLOOR_ROW, math.inf if first is None else first.value

    return sorted(rows, key=place)


def _scaled(found: Measured | None, column: LeagueColumn) -> Measured | None:
    if found is None:
        return None
    error = column.scale * found.error if column.has_error else math.nan
    return Measured(column.scale * found.value, error)


def _words(found: Measured | None) -> str:
    """Write a number to the digits of its error, else to three significant ones."""
    if found is None:
        return _NOTHING
    if math.isnan(found.error) or found.error == 0:
        return three_digits(found.value)
    digits = min(max(1 - math.floor(math.log10(found.error)), 0), 4)
    return f"{found.value:,.{digits}f} ± {found.error:,.{digits}f}"
