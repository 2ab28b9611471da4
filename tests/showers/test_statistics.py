"""Statistics of the training data against plain arithmetic, and back from generators' yaml."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from detectors import make_showers, ragged
from shower_files import cartesian, random_showers

from calo_train.showers.statistics import ShowerStatistics, gather_statistics

ENERGIES = np.asarray([256.0, 1024.0, 4194304.0], dtype=np.float32)  # MeV


def gathered(incident: np.ndarray) -> ShowerStatistics:
    """Gather two blocks of showers with these incident energies."""
    showers = random_showers(cartesian(), len(incident))
    showers = replace(showers, conditions={"incident_energy": incident.astype(np.float32)})
    half = len(incident) // 2
    blocks = [showers.rows(slice(0, half)), showers.rows(slice(half, None))]
    return gather_statistics(blocks, cartesian())


def test_few_values_are_listed_and_survive_the_manifest() -> None:
    statistics = gathered(np.repeat(ENERGIES, 20))
    assert statistics.condition_values == {"incident_energy": tuple(ENERGIES.tolist())}
    assert ShowerStatistics.from_mapping(statistics.to_mapping(), where="here") == statistics


@pytest.mark.parametrize(
    "incident",
    [
        np.linspace(1e3, 1e5, 200),  # continuous
        np.repeat(np.arange(1.0, 66.0), 10),  # more values than a list should hold
        np.repeat(ENERGIES, 1),  # three showers say nothing of a law
    ],
    ids=["continuous", "too many", "too few"],
)
def test_other_conditions_have_no_list(incident: np.ndarray) -> None:
    assert gathered(incident).condition_values == {}


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
