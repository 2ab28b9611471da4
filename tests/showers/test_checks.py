"""Impossible values and wrong units are found with where they are; nothing is mended by guess."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from shower_files import cartesian, edit, random_showers, write

from calo_train.errors import DataError
from calo_train.showers.checks import CheckedPass, valid_rows
from calo_train.showers.dataset import DatasetConfig, open_dataset
from calo_train.showers.showers import Showers, concatenate
from calo_train.showers.statistics import gather_statistics

if TYPE_CHECKING:
    from pathlib import Path

NUM_SHOWERS = 150


def good_showers() -> Showers:
    """Showers of 10 to 100 GeV that hold 2 % of it, but for one without energy."""
    showers = random_showers(cartesian(), NUM_SHOWERS)
    visible = showers.energies.sum(axis=1, keepdims=True)
    scale = 0.02 * showers.conditions["incident_energy"][:, None] / np.where(visible, visible, 1)
    return replace(showers, energies=showers.energies * scale)


def config(path: Path, **values: Any) -> DatasetConfig:
    stated = {"energy_range": "10:100GeV", "visible_fraction": 0.02, **values}
    return DatasetConfig(name="mine", path=str(path), **stated)


def check(dataset: DatasetConfig) -> tuple[CheckedPass, Showers]:
    """Run the pass and give it with all showers that it let through."""
    checked = CheckedPass(open_dataset(dataset), dataset)
    return checked, concatenate([showers for _, showers in checked.blocks()])


def test_good_showers_pass_and_empty_ones_are_kept_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D5: a shower without energy is a shower."""
    dataset = config(write(tmp_path / "a.h5", good_showers()))
    with caplog.at_level(logging.WARNING, "calo_train"):
        checked, showers = check(dataset)
    assert len(showers) == NUM_SHOWERS
    assert checked.num_empty == 1
    assert checked.valid_rows.tolist() == list(range(NUM_SHOWERS))
    assert checked.notes == ()
    assert caplog.text == ""


BAD = [
    ("energies", np.nan, "NaN or infinite voxel energies"),
    ("energies", np.inf, "NaN or infinite voxel energies"),
    ("energies", -np.inf, "NaN or infinite voxel energies"),
    ("energies", -1e-6, "negative voxel energies"),
    ("conditions/incident_energy", np.nan, "incident_energy that is NaN or infinite"),
    ("conditions/incident_energy", 0.0, "incident_energy that is not positive"),
    ("conditions/incident_energy", -5.0, "incident_energy that is not positive"),
]


@pytest.mark.parametrize(("key", "value", "words"), BAD)
def test_impossible_values_are_refused_with_file_key_and_rows(
    key: str, value: float, words: str, tmp_path: Path
) -> None:
    """D4: count and first rows, as counted in the file that holds them."""
    first = write(tmp_path / "first.h5", good_showers())
    second = write(tmp_path / "second.h5", good_showers())
    edit(second, key, 7, value)
    edit(second, key, 140, value)
    with pytest.raises(DataError) as caught:
        check(config(tmp_path / "*.h5"))
    assert caught.value.what == f"2 showers with {words}"
    assert f"{second}: {key}, first in rows 7, 140" in caught.value.where
    assert str(first) not in caught.value.where
    assert "dataset.invalid_showers=drop" in caught.value.do
    assert caught.value.exit_code == 3


def test_bad_rows_are_dropped_only_by_key_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D4: what is left is exactly the good rows, and the statistics are theirs."""
    path = write(tmp_path / "a.h5", good_showers())
    edit(path, "energies", 3, np.nan)
    edit(path, "energies", 149, -1.0)
    dataset = config(path, invalid_showers="drop")
    with caplog.at_level(logging.WARNING, "calo_train"):
        checked, showers = check(dataset)
    kept = [row for row in range(NUM_SHOWERS) if row not in (3, 149)]
    assert checked.valid_rows.tolist() == kept
    assert valid_rows(open_dataset(dataset), dataset).tolist() == kept
    np.testing.assert_array_equal(showers.energies, good_showers().energies[kept])
    assert len(checked.notes) == 2
    assert checked.notes[0] in caplog.text
    statistics = gather_statistics([showers], cartesian())
    assert (statistics.num_showers, statistics.num_empty) == (148, 1)


def test_file_without_any_good_shower_is_refused_even_when_dropping(tmp_path: Path) -> None:
    showers = good_showers()
    path = write(tmp_path / "a.h5", replace(showers, energies=showers.energies - 1))
    with pytest.raises(DataError, match="150 showers with negative"):
        check(config(path, invalid_showers="drop"))


@pytest.mark.parametrize(
    ("layout", "factor", "likely"),
    [
        ("getting_high", 1e3, "MeV"),  # MeV stored where GeV belong
        ("getting_high", 1e6, "keV"),
        ("calochallenge", 1e-3, "GeV"),
        ("native", 1e-3, "GeV"),
    ],
)
def test_incident_energies_in_another_unit_are_named(
    layout: str, factor: float, likely: str, tmp_path: Path
) -> None:
    """D2: ranges found and stated, the likely unit, the command that converts."""
    showers = good_showers()
    scaled = {"incident_energy": showers.conditions["incident_energy"] * np.float32(factor)}
    path = write(tmp_path / "a b.h5", replace(showers, conditions=scaled), layout)
    geometry = None if layout == "native" else _mapping()
    with pytest.raises(DataError) as caught:
        check(config(path, geometry=geometry))
    assert f"look like {likely}" in caught.value.what
    assert "mine holds 10 GeV to 100 GeV" in caught.value.where
    assert f"calo-data convert '{path}' --energy-unit {likely}" in caught.value.do


@pytest.mark.parametrize(("factor", "likely"), [(1e-3, "GeV"), (1e3, "keV"), (1e6, "eV")])
def test_voxel_energies_in_another_unit_are_named(
    factor: float, likely: str, tmp_path: Path
) -> None:
    """D2: by the mean visible fraction."""
    showers = good_showers()
    path = write(
        tmp_path / "a.h5", replace(showers, energies=showers.energies * np.float32(factor))
    )
    with pytest.raises(DataError) as caught:
        check(config(path))
    assert f"voxel energies look like {likely}" in caught.value.what
    assert f"--voxel-unit {likely}" in caught.value.do


def test_visible_fraction_that_no_unit_explains_is_refused_without_a_guess(tmp_path: Path) -> None:
    showers = good_showers()
    path = write(tmp_path / "a.h5", replace(showers, energies=showers.energies * np.float32(30)))
    with pytest.raises(DataError, match="another unit") as caught:
        check(config(path))
    assert "convert" not in caught.value.do
    assert "dataset.visible_fraction" in caught.value.do


def test_the_file_with_the_wrong_unit_is_found_among_good_ones(tmp_path: Path) -> None:
    showers = good_showers()
    write(tmp_path / "a.h5", showers)
    scaled = {"incident_energy": showers.conditions["incident_energy"] / np.float32(1000)}
    wrong = write(tmp_path / "b.h5", replace(showers, conditions=scaled).rows(slice(0, 20)))
    with pytest.raises(DataError, match="look like GeV") as caught:
        check(config(tmp_path / "*.h5"))
    assert str(wrong) in caught.value.where


def test_energies_beyond_the_stated_range_are_said_once_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = config(write(tmp_path / "a.h5", good_showers()), energy_range="20:40GeV")
    with caplog.at_level(logging.WARNING, "calo_train"):
        checked, _ = check(dataset)
    assert len(checked.valid_rows) == NUM_SHOWERS
    assert len(caplog.records) == 1
    assert "20 GeV to 40 GeV" in caplog.text


def _mapping() -> dict[str, Any]:
    from calo_train.geometry.sources import geometry_to_mapping

    return geometry_to_mapping(cartesian())


def test_energies_between_listed_ones_are_said_once_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A data set of a few energies, such as CaloChallenge 1, holds nothing between them."""
    showers = good_showers()
    listed = np.where(np.arange(NUM_SHOWERS) % 2, 2.0e4, 8.0e4).astype(np.float32)
    path = write(tmp_path / "a.h5", replace(showers, conditions={"incident_energy": listed}))
    with caplog.at_level(logging.WARNING, "calo_train"):
        check(config(path, energy_range="20,80GeV"))
        assert caplog.text == ""
        checked, _ = check(config(path, energy_range="20,40,90GeV"))
    assert len(checked.valid_rows) == NUM_SHOWERS
    assert len(caplog.records) == 1
    assert "20 GeV to 90 GeV, 3 values" in caplog.text
