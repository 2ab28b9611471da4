"""Keyed noise: the published generator, and independence of how a request is cut."""

from __future__ import annotations

import numpy as np
from scipy.stats import kstest

from calo_train.sampling.noise import BASE_NOISE, CONDITIONS, normals, philox, uniforms

FALSE_ALARM = 1e-4


def test_philox_gives_the_published_answers() -> None:
    """Known answers of Philox4x32-10 (Random123, kat_vectors)."""
    zeros = philox(0, np.zeros(4, dtype=np.uint32))
    assert [f"{word:08x}" for word in zeros] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    ones = philox(0xFFFFFFFFFFFFFFFF, np.full(4, 0xFFFFFFFF, dtype=np.uint32))
    assert [f"{word:08x}" for word in ones] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]


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
