"""What the samples repeat of the showers that they were trained on, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.evaluation.figures.gallery import ReportTable, shows
from calo_train.evaluation.floor import verdict_of
from calo_train.evaluation.memorisation import UNKNOWN_TRAINING
from calo_train.evaluation.words import significance_words, with_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calo_train.evaluation.results import Evaluation, SampleResult

_HEADER = (
    "sample", "verdict", "copies of training showers", "copies in itself",
    "nearer to training than to reference", "floor", "sigma",
)  # fmt: skip


@shows("Training data")
def memorisation_table(evaluation: Evaluation, section: str) -> Iterator[ReportTable]:
    """Show copies and the share of showers whose neighbours are those that were trained on."""
    if all(result.memorisation.reason == UNKNOWN_TRAINING for result in evaluation.samples):
        return
    yield ReportTable(
        "memorisation",
        "Memorised showers",
        section,
        "Copies are equal in every voxel. A generator that learned the law of its training data "
        "is as near to other showers of that law: 1/2 of its showers have their nearest "
        "neighbour among the training showers rather than among as many of the reference. The "
        "floor is that share for other showers of the reference.",
        _HEADER,
        [_row(result) for result in evaluation.samples],
        num_names=2,
    )


def _row(result: SampleResult) -> tuple[str, ...]:
    found, label = result.memorisation, result.showers.label
    copies = found.copies.num_in_training
    counts = ("not known" if copies is None else str(copies), str(found.copies.num_repeated))
    if found.nearer is None:
        return (label, f"not given: {found.reason}", *counts, "", "", "")
    nearer = found.nearer
    return (
        label,
        verdict_of(nearer.significance),
        *counts,
        with_error(nearer.value, nearer.error),
        with_error(nearer.floor, nearer.floor_error),
        significance_words(nearer.significance),
    )
