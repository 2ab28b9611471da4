"""No row is in two splits, and a run finds its rows again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calo_train.errors import DataError
from calo_train.showers.split import split_rows

KNOWN = ([0, 1, 2, 8, 9, 11], [3, 4, 5])  # train, validation


@given(
    num_rows=st.integers(20, 500),
    seed=st.integers(0, 2**63 - 1),
    train=st.floats(0.1, 0.8),
    validation=st.floats(0.1, 0.2),
)
def test_every_row_is_in_exactly_one_split(
    num_rows: int, seed: int, train: float, validation: float
) -> None:
    rows = np.arange(num_rows)
    split = split_rows(rows, seed=seed, train_fraction=train, validation_fraction=validation)
    pieces = (split.train, split.validation, split.test)
    np.testing.assert_array_equal(np.sort(np.concatenate(pieces)), rows)
    assert all((np.diff(piece) > 0).all() for piece in pieces)
    assert len(split.train) == round(train * num_rows)


def test_split_is_the_same_in_every_version() -> None:
    """Known answer: a run of an earlier version must find its test rows."""
    split = split_rows(np.arange(12), seed=0, train_fraction=0.5, validation_fraction=0.25)
    assert split.train.tolist() == KNOWN[0]
    assert split.validation.tolist() == KNOWN[1]
    other = split_rows(np.arange(12), seed=1, train_fraction=0.5, validation_fraction=0.25)
    assert other.train.tolist() != split.train.tolist()


def test_dropped_rows_leave_their_split_and_move_no_other() -> None:
    split = split_rows(np.arange(50), seed=3, train_fraction=0.6, validation_fraction=0.2)
    kept = np.setdiff1d(np.arange(50), [split.train[0], split.test[1]])
    restricted = split.restricted_to(kept)
    np.testing.assert_array_equal(restricted.train, split.train[1:])
    np.testing.assert_array_equal(restricted.validation, split.validation)
    np.testing.assert_array_equal(restricted.test, np.delete(split.test, 1))


def test_too_few_showers_are_refused() -> None:
    with pytest.raises(DataError, match="too few"):
        split_rows(np.arange(3), seed=0, train_fraction=0.8, validation_fraction=0.1)
