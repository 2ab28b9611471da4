"""Numbers as people read them: no powers of ten, no digits that mean nothing."""

from __future__ import annotations

import pytest

from calo_train.evaluation.words import share_words, three_digits


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.5, "0.500"), (10.0, "10.0"), (0.0000137, "0.0000137"), (8508.2, "8,508"),
        (-0.0277, "-0.0277"), (0.0, "0"),
    ],
)  # fmt: skip
def test_three_digits_are_shown(value, expected):
    assert three_digits(value) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, "0"), (2.7e-7, "< 0.001 %"), (0.204, "20 %"), (8.9e-5, "0.0089 %")],
)
def test_shares_are_per_cent(share, expected):
    assert share_words(share) == expected
