"""Does a sample repeat what it was trained on: copies counted, and whose neighbours it holds.

A generator that learned the law lies as near to independent showers as to those it was trained on.
Of showers of the sample, the share whose nearest training shower is nearer than the nearest of as
many reference showers is 1/2 then, and 1 for a generator that recites (the copying test of
2004.05675, with a count in place of its rank sum). The floor is that share for other reference
showers, with the same two pools. Distances are Euclidean between square roots of voxel energies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from calo_train.errors import DataError
from calo_train.evaluation.deposits import Energies, apply_threshold
from calo_train.evaluation.floor import Metric, verdict_of
from calo_train.evaluation.neighbours import squared_distances
from calo_train.evaluation.plain_data import metric_data

if TYPE_CHECKING:
    from calo_train.evaluation.floor import IndexArray
    from calo_train.evaluation.observable_distances import TablePair
    from calo_train.evaluation.shower_keys import ShowerKeys
    from calo_train.evaluation.shower_set import ShowerSet

MAX_POOL = 4000
MAX_QUERIES = 1000
MIN_QUERIES = 20
_POOL_BYTES = 256 << 20
UNKNOWN_TRAINING = "the training showers are not known; name them with --training FILE"


@dataclass(frozen=True)
class Copies:
    """Showers of a sample that were seen before: in itself, the reference, the training data."""

    num_repeated: int
    num_in_reference: int
    num_in_training: int | None  # None where the training showers are not known


@dataclass(frozen=True)
class Memorisation:
    """Copies, and the share of showers nearer to training than to reference showers.

    `nearer` is None, with a `reason`, where it cannot be given.
    """

    copies: Copies
    num_queries: int = 0
    pool_size: int = 0
    nearer: Metric | None = None
    reason: str | None = None


def require_untrained(
    reference: ShowerSet, found: ShowerKeys, training: ShowerSet, trained: ShowerKeys
) -> None:
    """Raise DataError, naming files and number of rows, when reference showers were trained on."""
    number = found.num_in(trained)
    if number == 0:
        return
    whole = number == len(found.keys)
    files = [
        ", ".join(str(path) for path in entry.source.paths) for entry in (reference, training)
    ]
    raise DataError(
        ("the reference is the training data itself: " if whole else "")
        + f"{number} of {found.num_showers} showers of the reference were trained on",
        where=f"{files[0]} and {files[1]}",
        do="give showers that were not trained on; calo-eval RUN without --reference takes those "
        "that the run kept",
    )


def count_copies(sample: ShowerKeys, reference: ShowerKeys, training: ShowerKeys | None) -> Copies:
    """Count showers of a sample that are in it twice, in the reference, in the training data."""
    return Copies(
        sample.num_repeated,
        sample.num_in(reference),
        None if training is None else sample.num_in(training),
    )


def memorisation_of(
    copies: Copies,
    showers: tuple[ShowerSet, ShowerSet],
    training: ShowerSet | None,
    pair: TablePair,
    *,
    threshold: float,
    seed: int,
) -> Memorisation:
    """Compare (reference, sample) with the training data, where they are known."""
    if training is None:
        return Memorisation(copies, reason=UNKNOWN_TRAINING)
    halves = pair.splits[0]
    most = _POOL_BYTES // (4 * training.geometry.num_voxels)
    pool_size = min(len(halves.first), len(training), MAX_POOL, most)
    num_queries = min(len(halves.first), MAX_QUERIES, most)
    if min(pool_size, num_queries) < MIN_QUERIES:
        return Memorisation(
            copies, reason=f"fewer than {MIN_QUERIES} showers of one of the three sets"
        )
    reference, sample = showers
    random = np.random.Generator(np.random.Philox(key=[seed, 1 << 32]))
    chosen = random.permutation(len(training))[:pool_size]
    trained = _features(training, chosen, threshold)
    positions = pair.reference.positions
    untrained = _features(reference, positions[halves.first[:pool_size]], threshold)
    value, floor = (
        nearer_share(_features(source, rows[:num_queries], threshold), trained, untrained)
        for source, rows in (
            (sample, pair.sample.positions[halves.sample]),
            (reference, positions[halves.second]),
        )
    )
    return Memorisation(copies, num_queries, pool_size, Metric(*value, *floor))


def memorisation_data(found: Memorisation) -> dict[str, Any]:
    """Give the block of metrics.json."""
    copies, nearer = found.copies, found.nearer
    numbers: dict[str, Any] = (
        {"nearer_to_training": None}
        if nearer is None
        else metric_data("nearer_to_training", nearer)
        | {"verdict": verdict_of(nearer.significance)}
    )
    return {
        "num_repeated": copies.num_repeated,
        "num_in_reference": copies.num_in_reference,
        "num_in_training": copies.num_in_training,
        "num_queries": found.num_queries,
        "pool_size": found.pool_size,
        "reason": found.reason,
        **numbers,
    }


def nearer_share(queries: Energies, trained: Energies, untrained: Energies) -> tuple[float, float]:
    """Give the share of rows (n, k) nearer to the first pool than to the second, and its error.

    Equal distances, such as of empty showers, count half.
    """
    centre = untrained.mean(axis=0)  # distances do not change, their rounding gets smaller
    first, second = (
        squared_distances(queries - centre, pool - centre).min(axis=1)
        for pool in (trained, untrained)
    )
    share = float(np.mean((first < second) + 0.5 * (first == second)))
    # At least the deviation of a count around 1/2: a share of 1 has an error too.
    return share, float(np.sqrt(0.25 / len(queries)))


def _features(showers: ShowerSet, positions: IndexArray, threshold: float) -> Energies:
    energies = showers.gather(np.sort(positions)).energies
    return np.sqrt(apply_threshold(energies, threshold))
