"""What a sample is worth, on laws whose quantiles are known."""

from __future__ import annotations

import numpy as np
import pytest

from calo_train.errors import DataError
from calo_train.evaluation.amplification import (
    QuantileCells,
    amplification,
    expected_distances,
    worth_of,
)


def uniform(number: int, axes: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).random((number, axes))


def exact_truth(num_cells: int) -> np.ndarray:
    """Counts of a reference without any fluctuation."""
    return np.full(num_cells, 10**9)


def test_cells_hold_equal_shares_of_the_reference():
    for axes, quantiles in ((1, 50), (2, 8), (3, 4)):
        reference = uniform(20_000, axes)
        counts = QuantileCells.of(reference, quantiles).counts(reference)
        assert len(counts) == quantiles**axes
        assert counts.max() - counts.min() <= 4


def test_cells_of_two_axes_are_conditional_quantiles():
    """Against a naive loop: the second axis is cut anew within each interval of the first."""
    first = uniform(4000, seed=1)[:, 0]
    reference = np.stack([first, first**2 + 0.1 * uniform(4000, seed=2)[:, 0]], axis=1)
    cells = QuantileCells.of(reference, 4)
    probe = reference[:50]
    edges = np.quantile(first, [0.25, 0.5, 0.75])
    for row, cell in zip(probe, cells.cell_of(probe), strict=True):
        interval = int((row[0] >= edges).sum())
        low, high = [-np.inf, *edges][interval], [*edges, np.inf][interval]
        beside = reference[(first >= low) & (first < high), 1]
        assert cell == 4 * interval + int((row[1] >= np.quantile(beside, [0.25, 0.5, 0.75])).sum())


@pytest.mark.parametrize("size", [100, 1000])
def test_a_true_sample_is_worth_its_size(size):
    """Closed form against many true samples: both distances, within 4 standard errors."""
    truth = exact_truth(20)
    random = np.random.default_rng(5)
    samples = random.multinomial(size, truth / truth.sum(), size=200)
    mean_mse, mean_jsd = expected_distances(truth, size)
    worths = [worth_of(counts, truth, random) for counts in samples]
    found = np.asarray([[worth.mse, worth.jsd] for worth in worths])
    errors = found.std(axis=0) / np.sqrt(len(found))
    assert abs(found[:, 0].mean() - mean_mse) < 4 * errors[0]
    # The closed form of the divergence is its first term in 1 / size: cells / size beside 1.
    assert abs(found[:, 1].mean() - mean_jsd) < 4 * errors[1] + mean_jsd * 20 / size


def test_known_shares_give_the_textbook_numbers():
    """Two cells, shares 3/4 and 1/4: MSE 1/16, worth 1/4 / (1/16) = 4 showers."""
    found = worth_of(np.asarray([3, 1]), exact_truth(2), np.random.default_rng(0))
    assert found.mse == pytest.approx(1 / 16)
    assert found.mse_showers == pytest.approx(4)
    middle = np.asarray([5 / 8, 3 / 8])
    jsd = sum(
        0.5 * (p * np.log(p / m)).sum()
        for p, m in ((np.asarray([0.75, 0.25]), middle), (np.asarray([0.5, 0.5]), middle))
    )
    assert found.jsd == pytest.approx(jsd)
    assert found.jsd_showers == pytest.approx(1 / 8 / jsd)


def test_bootstrap_errors_cover_the_spread_of_samples():
    truth = exact_truth(20)
    random = np.random.default_rng(7)
    shares = np.linspace(0.5, 1.5, 20) / 20  # far from the truth, so that errors are linear
    samples = random.multinomial(5000, shares, size=300)
    found = [worth_of(counts, truth, random) for counts in samples[:40]]
    spread = np.std([worth_of(counts, truth, random).mse for counts in samples])
    assert np.mean([worth.mse_error for worth in found]) == pytest.approx(spread, rel=0.2)


def smooth_case(bias: float):
    """A generator that knows the law up to `bias`, trained on 100 of 40,000 true showers."""
    return amplification(
        uniform(40_000, seed=1),
        uniform(100, seed=2),
        uniform(20_000, seed=3) ** (1 + bias),
        num_quantiles=20,
        sizes=(100, 2000, 20_000),
        seed=0,
    )


def test_a_generator_that_knows_the_law_amplifies_and_a_biased_one_saturates():
    good, biased = smooth_case(0.0), smooth_case(0.5)
    assert good.factor[0] > 20
    assert biased.factor[0] < 1
    assert [worth.num_showers for worth in good.generated] == [100, 2000, 20_000]
    assert good.generated[0].mse_showers == pytest.approx(100, rel=1.0)
    assert biased.generated[1].mse_showers == pytest.approx(
        biased.generated[2].mse_showers, rel=0.3
    )
    assert good.jsd_factor[0] == pytest.approx(good.factor[0], rel=0.2)


def test_what_cannot_be_told_is_warned_of():
    good, biased = smooth_case(0.0), smooth_case(0.5)
    assert any("floor" in warning for warning in good.warnings)
    assert not biased.warnings
    small = amplification(
        uniform(1000), uniform(100, seed=2), uniform(500, seed=3), num_quantiles=10, sizes=(500,),
        seed=0,
    )  # fmt: skip
    assert any("10.0 times" in warning for warning in small.warnings)


def test_too_few_reference_showers_for_the_cells_are_refused():
    with pytest.raises(DataError, match="too few for 400 cells"):
        QuantileCells.of(uniform(1000, 2), 20)
