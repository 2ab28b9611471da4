"""Figures of pairs of observables, and of showers at single energies."""

from __future__ import annotations

import numpy as np

from calo_train.evaluation.figures.energies import energy_ranges
from calo_train.evaluation.figures.planes import pull


def test_pulls_of_poisson_counts_are_standard_normal():
    random = np.random.default_rng(3)
    reference, sample = random.poisson(200.0, (2, 100, 100)).astype(float)
    pulls = pull(reference, sample)
    assert abs(pulls.mean()) < 4 / 100  # ten thousand bins
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * 10_000)


def test_a_bin_without_a_shower_on_either_side_has_no_pull():
    pulls = pull(np.asarray([[4.0, 0.0]]), np.asarray([[4.0, 0.0]]))
    assert pulls[0, 0] == 0
    assert np.isnan(pulls[0, 1])


def test_energy_ranges_are_the_ends_and_the_middle_of_the_spectrum():
    energies = np.linspace(10_000.0, 100_000.0, 901)
    assert np.allclose(energy_ranges(energies), [(10e3, 20e3), (50e3, 60e3), (90e3, 100e3)])
    assert energy_ranges(np.full(100, 5.0)) == []
