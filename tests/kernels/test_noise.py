"""Keyed noise: the published generator, and independence of how a request is cut."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
from scipy.stats import kstest

from calo_train.kernels.noise import (
    BASE_NOISE,
    CONDITIONS,
    normals,
    normals_by_numpy,
    philox,
    uniforms,
)

FALSE_ALARM = 1e-4


def test_philox_gives_the_published_answers() -> None:
    """Known answers of Philox4x32-10 (Random123, kat_vectors)."""
    zeros = philox(0, np.zeros(4, dtype=np.uint32))
    assert [f"{word:08x}" for word in zeros] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    ones = philox(0xFFFFFFFFFFFFFFFF, np.full(4, 0xFFFFFFFF, dtype=np.uint32))
    assert [f"{word:08x}" for word in ones] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]


@pytest.mark.parametrize(
    ("seed", "first", "count", "num"),
    [(7, 0, 50, 33), (2**63 - 1, 2**32 - 2, 4, 3030), (0, 0, 1, 1)],
)
def test_compiled_normals_are_those_of_numpy(seed: int, first: int, count: int, num: int) -> None:
    """Also beyond 2^32 showers."""
    found = normals(seed, first, count, num)
    expected = normals_by_numpy(seed, first, count, -(-num // 64) * 16)
    assert found.shape == (count, num)
    assert np.abs(found - expected[:, :num]).max() < 1e-13


def test_words_of_a_block_are_two_radii_and_angles() -> None:
    """Box-Muller, written out for the 16 blocks of 64 numbers."""
    words = uniforms(3, 5, 1, 64, purpose=BASE_NOISE).reshape(16, 4)
    numbers = normals(3, 5, 1, 64).reshape(4, 16)
    for block, (radius, angle, other_radius, other_angle) in enumerate(words.tolist()):
        first = cmath.rect(math.sqrt(-2 * math.log(radius)), math.tau * angle)
        second = cmath.rect(math.sqrt(-2 * math.log(other_radius)), math.tau * other_angle)
        expected = [first.real, first.imag, second.real, second.imag]
        assert numbers[:, block] == pytest.approx(expected, abs=1e-13)


def test_a_shower_draws_the_same_numbers_however_the_request_is_cut() -> None:
    whole = normals(7, 0, 50, 33)
    pieces = [normals(7, first, 5, 33) for first in range(0, 50, 5)]
    assert np.array_equal(whole, np.concatenate(pieces))


def test_showers_seeds_and_purposes_share_no_numbers() -> None:
    """Also beyond 2^32 showers, where the second counter word takes over."""
    first = uniforms(1, 2**32 - 2, 4, 8, purpose=BASE_NOISE)
    others = [uniforms(2, 0, 4, 8, purpose=BASE_NOISE), uniforms(1, 0, 4, 8, purpose=CONDITIONS)]
    drawn = np.concatenate([first, *others]).ravel()
    assert len(np.unique(drawn)) == len(drawn)


def test_normals_are_normal() -> None:
    drawn = normals(0, 0, 200, 301).ravel()
    assert kstest(drawn, "norm").pvalue > FALSE_ALARM
