"""Coarse showers from a file: which rows a tile holds, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import detectors
import numpy as np
import pytest

from calo_train.errors import DataError, GeometryMismatch, UsageError
from calo_train.families.generator import Generator
from calo_train.families.l2lflows import L2LFlows
from calo_train.families.supercalo import SuperCalo
from calo_train.sampling.coarse_showers import open_coarse
from calo_train.sampling.request import SampleRequest
from calo_train.showers.layouts import create_showers
from calo_train.showers.showers import Showers
from calo_train.showers.statistics import gather_statistics

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.families.contracts import Family
    from calo_train.geometry import Geometry

FINE = detectors.polar()
FAMILY = SuperCalo(coarse={"alpha": 2, "z": 3}, tile=4)
COARSE, REGROUPING = FAMILY.coarse_geometry(FINE)


def _generator(family: Family) -> Generator:
    blocks = [detectors.make_showers(FINE, 20)]
    statistics = gather_statistics(blocks, FINE, family.voxel_groups(FINE))
    return Generator(
        family, "none", FINE, statistics, 0.1, "made_up", "", "native", ("incident_energy",), {}
    )


def _file(folder: Path, geometry: Geometry, energies: np.ndarray) -> Path:  # type: ignore[type-arg]
    incident = np.linspace(2e4, 8e4, len(energies), dtype=np.float32)
    path = folder / "coarse.h5"
    with create_showers(path, "native", geometry, attributes={}) as writer:
        writer.append(
            Showers(energies.astype(np.float32), {"incident_energy": incident}, geometry)
        )
    return path


@pytest.mark.parametrize("count", [2, 4, 5, 12])
def test_tiles_go_through_the_file_again_and_again(tmp_path: Path, count: int) -> None:
    """Row k modulo their number is shower k, for tiles shorter and longer than the file."""
    energies = np.arange(5.0)[:, None] + np.zeros(COARSE.num_voxels)
    given = open_coarse(_file(tmp_path, COARSE, energies), _generator(FAMILY))
    for first in range(0, 40, count):
        tile = given.tile(first, count)
        assert tile.layer_energies is None
        assert tile.energies[:, 0].tolist() == [k % 5 for k in range(first, first + count)]
    conditions = given.conditions(7)["incident_energy"]
    assert conditions.tolist() == [*np.linspace(2e4, 8e4, 5), 2e4, 3.5e4]
    assert given.notes(5) == ()
    assert "7 showers refine 5" in given.notes(7)[0]


def test_fine_showers_are_summed_and_tell_their_layers(tmp_path: Path) -> None:
    showers = detectors.make_showers(FINE, 6)
    given = open_coarse(_file(tmp_path, FINE, showers.energies), _generator(FAMILY))
    tile = given.tile(4, 2)
    expected = REGROUPING.apply(showers.energies[4:])
    np.testing.assert_array_equal(tile.energies.numpy(), expected)
    assert tile.layer_energies is not None
    layers = showers.energies[4:].reshape(2, 3, -1).sum(axis=2)
    np.testing.assert_allclose(tile.layer_energies.numpy(), layers, rtol=1e-6)


def test_showers_of_another_detector_are_refused_with_both_described(tmp_path: Path) -> None:
    other = detectors.cartesian()
    path = _file(tmp_path, other, np.ones((2, other.num_voxels)))
    with pytest.raises(GeometryMismatch) as caught:
        open_coarse(path, _generator(FAMILY))
    for geometry in (COARSE, FINE, other):
        assert geometry.describe() in str(caught.value)


def test_negative_energies_are_refused_with_their_row(tmp_path: Path) -> None:
    energies = np.ones((5, COARSE.num_voxels))
    energies[3, 1] = -1
    given = open_coarse(_file(tmp_path, COARSE, energies), _generator(FAMILY))
    with pytest.raises(DataError, match="row 3"):
        given.tile(2, 2)


def test_families_that_do_not_refine_say_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not refine"):
        open_coarse(tmp_path / "any.h5", _generator(L2LFlows()))


def test_request_for_other_coarse_showers_is_another_request(tmp_path: Path) -> None:
    """Tiles of one must not be taken for those of the other when a request goes on."""
    given = {"incident_energy": np.full(3, 5e4)}
    texts = {SampleRequest(3, given=given).as_text()}
    for value in (1.0, 2.0):
        energies = np.full((3, COARSE.num_voxels), value)
        (tmp_path / "coarse.h5").unlink(missing_ok=True)
        with open_coarse(_file(tmp_path, COARSE, energies), _generator(FAMILY)) as coarse:
            texts.add(SampleRequest(3, given=given, coarse=coarse).as_text())
    assert len(texts) == 3
