"""Which showers were seen before, found before anything is measured.

A reference that was trained on flatters every number, so it is refused. Copies in a sample are
counted and said aloud.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.evaluation.memorisation import Copies, count_copies, require_untrained
from calo_train.evaluation.shower_keys import keys_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from calo_train.evaluation.shower_set import ShowerSet

Training = tuple["ShowerSet | None", ...]  # of each sample; None where it is not known


def require_untrained_reference(
    reference: ShowerSet, training: Training, threshold: float
) -> None:
    """Raise DataError when showers of the reference were trained on."""
    for trained in filter(None, training):
        require_untrained(
            reference, keys_of(reference, threshold), trained, keys_of(trained, threshold)
        )


def find_copies(
    reference: ShowerSet, samples: Sequence[ShowerSet], training: Training, threshold: float
) -> tuple[Copies, ...]:
    """Count copies in each sample; DataError for a reference that was trained on."""
    require_untrained_reference(reference, training, threshold)
    return tuple(
        count_copies(
            keys_of(sample, threshold),
            keys_of(reference, threshold),
            None if trained is None else keys_of(trained, threshold),
        )
        for sample, trained in zip(samples, training, strict=True)
    )


def copy_warnings(
    sample: ShowerSet, copies: Copies, *, is_reference: bool = False
) -> Iterator[str]:
    """Say what a sample repeats; a sample that is the reference repeats it by intent."""
    number = f"of {len(sample)} showers of {sample.label}"
    if copies.num_in_training:
        yield (
            f"memorised: {copies.num_in_training} {number} are copies of showers that were "
            "trained on"
        )
    if copies.num_in_reference and not is_reference:
        yield f"{copies.num_in_reference} {number} are showers of the reference"
    if copies.num_repeated:
        yield f"{copies.num_repeated} {number} repeat another of its showers"
