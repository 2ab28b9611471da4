"""Requests: laws of conditions, shards, the trained domain."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calo_train.errors import UsageError
from calo_train.families.generator import load_generator
from calo_train.quantities import Spectrum, parse_spectrum
from calo_train.sampling.request import (
    SampleRequest,
    Shard,
    conditions_between,
    conditions_outside,
    parse_shard,
    require_conditions,
    trained_laws,
)

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.families.generator import Generator


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


TRAINED = (256.0, 512.0, 1024.0, 2048.0, 4096.0)  # MeV, as in CaloChallenge data set 1


@pytest.fixture
def discrete(finished_run: Path) -> Generator:
    """A generator of data that hold five energies."""
    generator = load_generator(finished_run / "generator")
    statistics = replace(
        generator.statistics,
        condition_range={"incident_energy": (TRAINED[0], TRAINED[-1])},
        condition_values={"incident_energy": TRAINED},
    )
    return replace(generator, statistics=statistics)


@pytest.mark.parametrize("text", ["0.512GeV", "256,4096MeV", "512,256MeV"])
def test_trained_values_are_drawn_without_a_word(discrete: Generator, text: str) -> None:
    law = {"incident_energy": parse_spectrum(text, "energy", where="--energy")}
    assert conditions_between(SampleRequest(10, law), discrete) == ()


@pytest.mark.parametrize("text", ["600MeV", "256:4096MeV", "log:256:512MeV", "256,257MeV"])
def test_energies_between_trained_values_are_told(discrete: Generator, text: str) -> None:
    law = {"incident_energy": parse_spectrum(text, "energy", where="--energy")}
    request = SampleRequest(10, law)
    require_conditions(request, discrete)
    assert conditions_between(request, discrete) == (
        "incident_energy takes values between those trained; the data hold 5: 256 MeV, 512 MeV, "
        "1.024 GeV, ..., 4.096 GeV",
    )


def test_given_energies_are_compared_one_by_one(discrete: Generator) -> None:
    """A file in GeV gives them back up to two roundings of float32."""
    in_gev = (np.repeat(TRAINED, 3) / 1000).astype(np.float32)
    same = {"incident_energy": (in_gev * 1000.0).astype(np.float32).astype(float)}
    assert conditions_between(SampleRequest(15, given=same), discrete) == ()
    other = {"incident_energy": np.asarray([256.0, 300.0])}
    assert len(conditions_between(SampleRequest(2, given=other), discrete)) == 1


def test_without_conditions_trained_values_are_drawn_equally_often(discrete: Generator) -> None:
    request = SampleRequest(5000, trained_laws(discrete))
    values, counts = np.unique(request.conditions(0, 5000)["incident_energy"], return_counts=True)
    assert values.tolist() == list(TRAINED)
    # 1000 expected each, sd 28; 4 sd of five counts is a false alarm rate of 3e-4.
    assert abs(counts - 1000).max() < 114
    assert conditions_between(request, discrete) == ()


def test_missing_and_unknown_conditions_are_named(finished_run: Path) -> None:
    """S6."""
    generator = load_generator(finished_run / "generator")
    with pytest.raises(UsageError, match="incident_energy"):
        require_conditions(SampleRequest(1), generator)
    law = {"incident_energy": Spectrum(5e4, 5e4), "polar_angle": Spectrum(0.1, 0.1)}
    with pytest.raises(UsageError, match="polar_angle"):
        require_conditions(SampleRequest(1, law), generator)
