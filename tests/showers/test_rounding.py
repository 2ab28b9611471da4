"""D13: after the rounding is undone no comb is left, and the law is the smooth one again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from calo_train.showers.layouts import open_file
from calo_train.showers.paths import embedded_file
from calo_train.showers.rounding import undo_rounding

BITS = 10
NUM_VALUES = 200_000


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Round to `bits` after the leading one, ties to even, by decimal arithmetic on frexp."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1)


def undone(values: np.ndarray, bits: int = BITS, seed: int = 0) -> np.ndarray:
    energies = torch.from_numpy(values.astype(np.float32))[:, None]
    uniform = torch.rand(energies.shape, generator=torch.Generator().manual_seed(seed))
    result = undo_rounding(energies, torch.full((len(values),), bits), uniform)
    return result[:, 0].double().numpy()


def smooth_values() -> np.ndarray:
    """Log-normal over four powers of two; float32, as a simulation would write them."""
    random = np.random.default_rng(1)
    return random.lognormal(0.0, 0.7, NUM_VALUES).astype(np.float32).astype(np.float64)


def share_on_comb(values: np.ndarray, bits: int = BITS) -> float:
    return float(np.mean(rounded(values, bits) == values))


def test_no_comb_is_left() -> None:
    stored = rounded(smooth_values(), BITS)
    assert share_on_comb(stored) == 1.0
    # float32 has 13 more bits: one value in 2^13 hits a tooth by chance.
    assert share_on_comb(undone(stored)) < 3 * 2.0**-13


def test_the_law_inside_a_tooth_is_flat_again() -> None:
    """Position inside the interval of the last place: uniform, and a spike without undoing.

    Kolmogorov-Smirnov with fixed seeds; 1e-4 is the false alarm rate.
    """
    smooth, stored = smooth_values(), rounded(smooth_values(), BITS)

    def position(values: np.ndarray) -> np.ndarray:
        mantissa, _ = np.frexp(values)
        return np.mod(np.ldexp(mantissa, BITS + 1), 1.0)

    assert stats.kstest(position(smooth), "uniform").pvalue > 1e-4
    assert stats.kstest(position(undone(stored)), "uniform").pvalue > 1e-4
    assert stats.kstest(position(stored), "uniform").pvalue < 1e-12


def test_coarse_rounding_is_undone_up_to_the_law_inside_an_interval() -> None:
    """With 3 bits the comb is visible in the law itself, and undoing takes it away."""
    random = np.random.default_rng(2)
    smooth = random.uniform(1.0, 16.0, NUM_VALUES)  # flat, so that undoing is exact
    stored = rounded(smooth, 3)
    inside = (stored > 1.0) & (stored < 16.0)  # the ends stand for values beyond them
    low, high = 1.0 + 2.0**-4, 16.0 - 2.0**-1  # between the intervals of both ends

    def law(values: np.ndarray) -> float:
        return float(stats.kstest((values[inside] - low) / (high - low), "uniform").pvalue)

    assert law(undone(stored, 3)) > 1e-4
    assert law(stored) < 1e-12


@pytest.mark.parametrize("bits", [3, 10, 20])
def test_every_value_stays_in_the_interval_that_rounds_to_it(bits: int) -> None:
    """Powers of two included, whose lower half interval is half as wide; both signs."""
    powers = 2.0 ** np.arange(-20, 10)
    stored = np.concatenate([rounded(smooth_values()[:5000], bits), powers, -powers])
    size = np.abs(stored)
    last_place = 2.0 ** (np.floor(np.log2(size)) - bits)
    below = np.where(np.isin(size, powers), 0.25, 0.5) * last_place
    for seed in range(3):
        found = undone(stored, bits, seed) * np.sign(stored)
        assert ((size - below <= found) & (found <= size + 0.5 * last_place)).all()


def test_zeros_and_rows_that_were_not_rounded_stay() -> None:
    energies = torch.tensor([[0.0, 1.5, 2.0], [0.0, 1.5, 2.0]])
    bits = torch.tensor([0, BITS])
    result = undo_rounding(energies, bits, torch.full((2, 3), 0.9))
    assert torch.equal(result[0], energies[0])
    assert result[1, 0] == 0.0
    assert (result[1, 1:] != energies[1, 1:]).all()


def test_embedded_sample_is_rounded_to_what_it_says() -> None:
    file = open_file(embedded_file("ild_sample.h5"))
    from calo_train.geometry import Axis, Geometry, Layer

    axis = Axis("x", tuple(range(11)))
    geometry = Geometry("sample", tuple(Layer((axis, axis), i, 1) for i in range(30)))
    energies = file.read(0, 20, geometry).energies
    values = energies[energies > 0].astype(np.float64)
    assert share_on_comb(values, file.mantissa_bits) == 1.0
    assert share_on_comb(values, file.mantissa_bits - 1) < 0.6
    assert share_on_comb(undone(values, file.mantissa_bits)) < 0.01
