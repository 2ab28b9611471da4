"""The headline of a sample: a few numbers in large letters, what fails first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.evaluation.floor import VERDICTS
from calo_train.evaluation.words import significance_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from calo_train.evaluation.results import ObservableResult, SampleResult

VERDICT_STYLES = dict(zip(VERDICTS, ("good", "good", "fair", "poor"), strict=True))
_ORDER = ("poor", "fair", "good", "plain")


@dataclass(frozen=True)
class Card:
    """A headline number with what it stands beside."""

    label: str
    value: str
    detail: str
    style: str = "plain"  # one of _ORDER


def summary_cards(result: SampleResult) -> list[Card]:
    """Make all cards that a sample has, failures first."""
    made = [make(result) for make in _CARDS]
    cards = [card for card in made if card is not None]
    return sorted(cards, key=lambda card: _ORDER.index(card.style))


def _observables_card(result: SampleResult) -> Card:
    entries = result.observables
    close = [entry for entry in entries if entry.verdict != VERDICTS[-1]]
    return Card(
        "observables within 3 sigma of their floor",
        f"{len(close)} of {len(entries)}",
        _count_words(entries),
        "good" if len(close) == len(entries) else "poor",
    )


def _worst_card(result: SampleResult) -> Card:
    """Name the worst of all; among hundreds of layers chance alone puts one beyond 3 sigma."""
    worst = result.ranking[0]
    return Card(
        "differs most",
        worst.title,
        f"{significance_words(worst.significance)} sigma, the largest of {len(result.ranking)}",
        VERDICT_STYLES[result.verdict],
    )


def _classifier_card(result: SampleResult) -> Card | None:
    if result.classifier is None:
        return None
    auc, floor = result.classifier.auc, result.classifier.floor
    return Card(
        result.classifier.title,
        f"{auc[0]:.3f} ± {auc[1]:.3f}",
        f"floor {floor[0]:.3f} ± {result.classifier.floor_error:.3f}; "
        f"{result.classifier.num_per_class} showers a class",
        VERDICT_STYLES[result.classifier.verdict],
    )


def _health_card(result: SampleResult) -> Card:
    health = result.table.health
    return Card(
        "invalid showers",
        f"{health.num_invalid} of {health.num_read}",
        f"{health.num_empty} without any energy, kept",
        "poor" if health.num_invalid else "plain",
    )


# A new card is a function here; one that has nothing to say of a sample gives None.
_CARDS: tuple[Callable[[SampleResult], Card | None], ...] = (
    _observables_card,
    _worst_card,
    _classifier_card,
    _health_card,
)


def _count_words(entries: Sequence[ObservableResult]) -> str:
    counts = [sum(entry.verdict == verdict for entry in entries) for verdict in VERDICTS]
    return f"{counts[0]} within 1, {counts[1]} within 2, {counts[2]} within 3, {counts[3]} above"
