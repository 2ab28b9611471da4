"""Distances against closed forms and independent versions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import wasserstein_distance

from calo_train.evaluation import distances
from calo_train.evaluation.distances import (
    MAX_BINS,
    MIN_BINS,
    Binning,
    PooledOrder,
    automatic_binning,
    histogram,
    reduced_chi2,
    separation_power,
)

counts = arrays.arrays(np.float64, 8, elements=st.integers(0, 1000).map(float))


def naive_separation(first, second):
    h = [value / sum(first) for value in first]
    g = [value / sum(second) for value in second]
    return 0.5 * sum((a - b) ** 2 / (a + b) for a, b in zip(h, g, strict=True) if a + b > 0)


@given(counts.filter(np.any), counts.filter(np.any))
def test_separation_power_is_triangular_discrimination(first, second):
    value = separation_power(first, second)
    assert value == pytest.approx(naive_separation(first, second), abs=1e-12)
    assert value == pytest.approx(separation_power(second, first), abs=1e-12)
    assert -1e-15 <= value <= 1 + 1e-12


def test_separation_power_of_equal_disjoint_and_empty_histograms():
    h = np.array([1.0, 2.0, 0.0, 0.0])
    assert separation_power(h, 7 * h) == 0
    assert separation_power(h, h[::-1]) == pytest.approx(1)
    assert separation_power(h, 0 * h) == 1


@given(counts.filter(np.any), counts.filter(np.any))
def test_chi2_is_that_of_normalised_histograms(first, second):
    bins = [(a, b) for a, b in zip(first, second, strict=True) if a + b > 0]
    n, m = sum(first), sum(second)
    expected = sum((a / n - b / m) ** 2 / (a / n**2 + b / m**2) for a, b in bins)
    found = reduced_chi2(first[None], second[None])[0]
    assert found == pytest.approx(expected / (len(bins) - 1) if len(bins) > 1 else 0, abs=1e-9)


def test_chi2_of_equal_laws_is_one():
    """Its mean over 2000 pairs, known to sqrt(2 / 19 / 2000) = 0.7 %."""
    random = np.random.default_rng(1)
    pairs = random.multinomial(1000, np.full(20, 0.05), (2, 2000)).astype(float)
    assert reduced_chi2(*pairs).mean() == pytest.approx(1, abs=4 * 0.0073)


def test_undefined_values_are_left_out_of_wasserstein_distances():
    first, second = np.array([1.0, np.nan, 3.0]), np.array([np.nan, 4.0, 2.5])
    expected = wasserstein_distance([1.0, 3.0], [4.0, 2.5])
    every = np.arange(3)
    assert PooledOrder(first, second).distance(every, every) == pytest.approx(expected)


@pytest.mark.parametrize("sizes", [(200, 300), (300, 200), (5, 5)])
def test_wasserstein_of_subsets_equals_scipy(sizes):
    random = np.random.default_rng(5)
    first, second = random.normal(size=1000), random.normal(0.3, 2, size=800).round(1)
    rows = random.permutation(1000)[: sizes[0]], random.permutation(800)[: sizes[1]]
    expected = wasserstein_distance(first[rows[0]], second[rows[1]])
    assert PooledOrder(first, second).distance(*rows) == pytest.approx(expected, rel=1e-9)


def test_bins_are_half_open_and_the_last_is_closed():
    binning = Binning(np.array([0.0, 1.0, 2.0]), is_log=False)
    values = np.array([0.0, 0.99, 1.0, 2.0, 2.01, -0.01])
    np.testing.assert_array_equal(binning.counts(values), [2, 2])
    assert binning.share_outside(values) == pytest.approx(2 / 6)


@pytest.fixture(params=["compiled", "numpy"])
def histograms(request, monkeypatch):
    """Both ways of finding and counting bins."""
    if request.param == "numpy":
        monkeypatch.setattr(distances, "compiled_histograms", lambda: None)


@pytest.mark.usefixtures("histograms")
@pytest.mark.parametrize("is_log", [False, True])
def test_bins_equal_a_search_at_and_beside_every_edge(is_log):
    edges = np.geomspace(0.0151515, 3e4, 40) if is_log else np.linspace(-30, 30, 101)
    values = np.concatenate([edges, np.nextafter(edges, -9e9), np.nextafter(edges, 9e9), [np.nan]])
    expected = np.searchsorted(edges, values, side="right") - 1
    expected[values == edges[-1]] = len(edges) - 2
    expected[(expected < 0) | (expected > len(edges) - 2)] = len(edges) - 1
    np.testing.assert_array_equal(Binning(edges, is_log).indices(values), expected)


@pytest.mark.usefixtures("histograms")
@pytest.mark.parametrize("number", [0, 1, 3, 7, 2001])
@pytest.mark.parametrize("is_log", [False, True])
def test_bins_of_any_number_of_values_equal_a_search(number, is_log):
    """Also where they fill no vector, and for NaN, infinite and denormal values."""
    edges = np.geomspace(0.1, 100, 31) if is_log else np.linspace(-2, 2, 21)
    values = np.random.default_rng(7).normal(0, 3, number)
    values[: number // 3] = np.resize([np.nan, np.inf, -np.inf, 5e-324, -0.0], number // 3)
    expected = np.searchsorted(edges, values, side="right") - 1
    is_inside = (values >= edges[0]) & (values <= edges[-1])
    np.testing.assert_array_equal(
        Binning(edges, is_log).indices(values), np.where(is_inside, expected, len(edges) - 1)
    )


@pytest.mark.usefixtures("histograms")
@pytest.mark.parametrize("number", [0, 1, 2, 501])
def test_histograms_count_all_bins_or_those_of_rows(number):
    random = np.random.default_rng(3)
    bins = random.integers(0, 8, 501, dtype=np.int32)
    rows = random.permutation(501)[:number]
    for chosen in (bins[:number], bins[rows]):
        counts = histogram(chosen, 7)
        np.testing.assert_array_equal(counts, [np.sum(chosen == index) for index in range(8)])
    np.testing.assert_array_equal(histogram(bins, 7, rows), histogram(bins[rows], 7))


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("number", [20, 1500, 200_000])
def test_automatic_bins_hold_the_central_share_of_the_reference(scale, number):
    values = np.random.default_rng(1).lognormal(0, 1, number)
    binning = automatic_binning(values, scale)
    assert MIN_BINS <= binning.num_bins <= MAX_BINS
    assert binning.share_outside(values) <= 0.0021
    steps = np.diff(np.log(binning.edges) if scale == "log" else binning.edges)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_bins_of_counts_hold_whole_numbers_of_integers():
    values = np.random.default_rng(1).poisson(400, 5000).astype(float)
    binning = automatic_binning(values, "auto", is_count=True)
    widths = np.diff(binning.edges)
    assert (widths == widths[0]).all()
    assert widths[0] == round(widths[0])
    assert (binning.edges % 1 == 0.5).all()


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-6])
def test_an_observable_that_never_varies_has_a_bin(value):
    """Single-energy sets, dead layers, detectors of one layer."""
    values = np.full(100, value)
    for scale in ("linear", "auto"):
        assert automatic_binning(values, scale).share_outside(values) == 0


def test_automatic_axis_is_logarithmic_above_two_decades():
    random = np.random.default_rng(1)
    assert automatic_binning(random.uniform(1, 90, 1000), "auto").is_log is False
    assert automatic_binning(10 ** random.uniform(0, 3, 1000), "auto").is_log is True
