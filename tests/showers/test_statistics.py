"""Statistics of the training data against plain arithmetic, and back from generators' yaml."""

from __future__ import annotations

import numpy as np
import pytest
from detectors import make_showers, ragged

from calo_train.showers.statistics import ShowerStatistics, gather_statistics


def test_largest_visible_fraction_is_that_of_one_shower() -> None:
    """Over blocks, each shower by its own incident energy; CaloFlow scales by it."""
    geometry = ragged()
    showers = [make_showers(geometry, 30, seed) for seed in range(3)]
    found = gather_statistics(showers, geometry)
    expected = max(
        float(energies.sum(dtype=np.float64)) / float(incident)
        for block in showers
        for energies, incident in zip(
            block.energies, block.conditions["incident_energy"], strict=True
        )
    )
    assert found.visible_fraction_max == pytest.approx(expected, rel=1e-6)
    assert ShowerStatistics.from_mapping(found.to_mapping(), where="here") == found


def test_statistics_of_an_older_generator_are_read() -> None:
    mapping = gather_statistics([make_showers(ragged(), 30)], ragged()).to_mapping()
    for newer in ("visible_fraction_max", "condition_values"):
        del mapping[newer]
    old = ShowerStatistics.from_mapping(mapping, where="here")
    assert old.visible_fraction_max == 0.0
    assert old.condition_values == {}
