"""Draws by quantiles against scipy's distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from calo_train.showers.simulator.fluctuations import (
    gamma_from_normals,
    gamma_numbers,
    poisson_counts,
)

PROBABILITIES = (np.arange(20_000) + 0.5) / 20_000


@pytest.mark.parametrize("mean", [0.0, 1e-6, 0.03, 0.7, 5.0, 15.9])
def test_small_counts_are_the_exact_quantiles(mean: float) -> None:
    found = poisson_counts(PROBABILITIES, np.full_like(PROBABILITIES, mean))
    np.testing.assert_array_equal(found, np.maximum(stats.poisson.ppf(PROBABILITIES, mean), 0))


@pytest.mark.parametrize("mean", [16.0, 60.0, 4000.0])
def test_large_counts_have_the_moments_of_poisson(mean: float) -> None:
    found = poisson_counts(PROBABILITIES, np.full_like(PROBABILITIES, mean))
    assert found.mean() == pytest.approx(mean, rel=2e-3)
    assert found.var() == pytest.approx(mean, rel=0.02)
    assert stats.skew(found) == pytest.approx(mean**-0.5, abs=0.02)


@pytest.mark.parametrize("shape", [0.01, 0.4, 3.0, 29.0, 31.0, 5000.0])
def test_gamma_numbers_are_the_quantiles_of_mean_one(shape: float) -> None:
    found = gamma_numbers(PROBABILITIES, np.full_like(PROBABILITIES, shape))
    expected = stats.gamma.ppf(PROBABILITIES, shape) / shape
    # Exact below a shape of 30, then Wilson and Hilferty's cube, 2 % of a width at four sigma.
    width = 1e-9 if shape < 30 else 0.02 * shape**-0.5
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=width)


def test_gamma_numbers_from_normals_keep_mean_and_width() -> None:
    normal = stats.norm.ppf(PROBABILITIES)
    for shape in (1.33, 4.0, 50.0):
        found = gamma_from_normals(normal, np.full_like(normal, shape))
        assert found.mean() == pytest.approx(1, abs=0.01)
        assert found.std() == pytest.approx(shape**-0.5, rel=0.05)
