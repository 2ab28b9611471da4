"""Requests: laws of conditions, shards, the trained domain."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calo_train.errors import UsageError
from calo_train.families.generator import load_generator
from calo_train.quantities import Spectrum
from calo_train.sampling.request import (
    SampleRequest,
    Shard,
    conditions_outside,
    parse_shard,
    require_conditions,
    trained_laws,
)

if TYPE_CHECKING:
    from pathlib import Path


@given(st.integers(0, 10_000), st.integers(1, 50))
def test_shards_cut_a_request_without_gap_or_overlap(num_showers: int, count: int) -> None:
    ends = [Shard(index, count).rows(num_showers) for index in range(count)]
    assert ends[0][0] == 0
    assert ends[-1][1] == num_showers
    assert all(left[1] == right[0] for left, right in itertools.pairwise(ends))


def test_energies_follow_their_law_and_not_the_cut() -> None:
    request = SampleRequest(1000, {"incident_energy": Spectrum(1.0, 1000.0, is_logarithmic=True)})
    energies = request.conditions(0, 1000)["incident_energy"]
    assert np.array_equal(energies[300:400], request.conditions(300, 100)["incident_energy"])
    assert energies.min() >= 1
    assert energies.max() <= 1000
    # Half of a log-uniform law on [1, 1000] lies below the root; 5 sigma of 1000 coins is 79.
    assert abs(np.count_nonzero(energies < 1000**0.5) - 500) < 79


@pytest.mark.parametrize("text", ["4/4", "1", "-1/2", "a/b", "0/0"])
def test_wrong_shards_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        parse_shard(text)


def test_the_trained_domain_is_kept_unless_asked_otherwise(finished_run: Path) -> None:
    """S7."""
    generator = load_generator(finished_run / "generator")
    law = {"incident_energy": Spectrum(500_000.0, 500_000.0)}
    with pytest.raises(UsageError, match=r"500 GeV.*trained"):
        require_conditions(SampleRequest(1, law), generator)
    far = SampleRequest(1, law, is_extrapolating=True)
    require_conditions(far, generator)
    assert "500 GeV" in conditions_outside(far, generator)[0]
    inside = SampleRequest(1, {"incident_energy": Spectrum(10_000.0, 100_000.0)})
    require_conditions(inside, generator)
    assert conditions_outside(inside, generator) == ()


def test_without_conditions_the_trained_domain_is_the_law(finished_run: Path) -> None:
    generator = load_generator(finished_run / "generator")
    request = SampleRequest(500, trained_laws(generator))
    require_conditions(request, generator)
    low, high = generator.statistics.condition_range["incident_energy"]
    energies = request.conditions(0, 500)["incident_energy"]
    assert low <= energies.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < energies.max() <= high


def test_missing_and_unknown_conditions_are_named(finished_run: Path) -> None:
    """S6."""
    generator = load_generator(finished_run / "generator")
    with pytest.raises(UsageError, match="incident_energy"):
        require_conditions(SampleRequest(1), generator)
    law = {"incident_energy": Spectrum(5e4, 5e4), "polar_angle": Spectrum(0.1, 0.1)}
    with pytest.raises(UsageError, match="polar_angle"):
        require_conditions(SampleRequest(1, law), generator)
