"""What a generator remembers of its data: a condition that takes a few values is known by them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
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


def test_statistics_of_earlier_versions_have_no_list() -> None:
    mapping = gathered(np.repeat(ENERGIES, 20)).to_mapping()
    del mapping["condition_values"]
    assert ShowerStatistics.from_mapping(mapping, where="here").condition_values == {}
