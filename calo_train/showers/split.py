"""Training, validation and test rows by index and seed: no row is in two, whatever reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError

IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Sorted row numbers of the three splits."""

    train: IndexArray
    validation: IndexArray
    test: IndexArray

    def restricted_to(self, rows: IndexArray) -> Split:
        """Keep only the given rows in each split."""
        return Split(*(np.intersect1d(piece, rows) for piece in vars(self).values()))


def split_rows(
    rows: IndexArray, *, seed: int, train_fraction: float, validation_fraction: float
) -> Split:
    """Split row numbers after one seeded shuffle; the same rows and seed give the same split.

    The shuffle sorts raw Philox words, which numpy guarantees to be the same in every version;
    `Generator.permutation` may change between versions, and a run must find its test rows again.
    """
    num_train = round(train_fraction * len(rows))
    num_validation = min(round(validation_fraction * len(rows)), len(rows) - num_train)
    if num_train < 1 or num_validation < 1:
        raise DataError(
            f"{len(rows)} showers are too few to split: {num_train} to train, "
            f"{num_validation} to validate",
            where="dataset.train_fraction, dataset.validation_fraction",
            do="give more showers",
        )
    words = np.random.Philox(key=seed).random_raw(len(rows))
    shuffled = rows[np.argsort(words, kind="stable")]
    pieces = np.split(shuffled, (num_train, num_train + num_validation))
    train, validation, test = (np.sort(piece) for piece in pieces)
    return Split(train, validation, test)
