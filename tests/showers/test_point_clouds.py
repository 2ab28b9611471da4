"""The ShowerData layout: points become voxels of a geometry, voxels points at their centres."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from shower_files import DETECTORS, cartesian, polar, random_showers, write

from calo_train.cli.inputs import named_dataset
from calo_train.errors import DataError, GeometryMismatch
from calo_train.showers.convert import Conversion, convert
from calo_train.showers.fitting import fitting_datasets
from calo_train.showers.layouts import create_showers, open_file
from calo_train.showers.paths import embedded_file
from calo_train.showers.source import open_paths

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.geometry import Geometry
    from calo_train.showers.showers import Showers

UNIT_RTOL = 2.0**-22  # MeV are written as GeV and read back: two roundings of float32


def point_file(path: Path, showers: list[list[tuple[float, ...]]], **changed: Any) -> Path:
    """Write points as showerdata 0.6.1 does, key by key."""
    size = len(showers[0][0])
    arrays = {
        "energies": np.full((len(showers), 1), 50.0, np.float32),
        "directions": np.tile(np.asarray([0, 0, 1], np.float32), (len(showers), 1)),
        "pdg": np.full(len(showers), 22, np.int32),
        "shower_ids": np.arange(len(showers), dtype=np.int32),
        "shape": np.asarray([len(showers), max(map(len, showers)), size]),
        "num_points": np.asarray([len(points) for points in showers], np.int32),
        **changed,
    }
    with h5py.File(path, "w") as file:
        file.attrs["showerdata_version"] = "0.6.1"
        rows = file.create_dataset("showers", (len(showers),), h5py.vlen_dtype(np.float32))
        for index, points in enumerate(showers):
            rows[index] = np.asarray(points, np.float32).ravel()
        for key, values in arrays.items():
            file[key] = values
    return path


def test_points_are_summed_in_the_voxel_that_holds_them(tmp_path: Path) -> None:
    """mm and GeV; cells are x -15, -5, 5, 15 and y -20 to 20 in four, two layers."""
    path = point_file(
        tmp_path / "points.h5",
        [
            [(-14.9, -19.9, 0, 0.5, 1.0), (-5.1, -10.1, 0, 0.25, 2.0), (14.9, 0.1, 1, 0.125, 3.0)],
            [(0.0, 0.0, 0.99, 2.0, 0.0)],
        ],
    )
    file = open_file(path)
    found = file.read(0, 2, cartesian()).energies.reshape(2, 2, 3, 4)
    expected = np.zeros((2, 2, 3, 4))
    expected[0, 0, 0, 0] = 750.0
    expected[0, 1, 2, 2] = 125.0
    expected[1, 1, 1, 2] = 2000.0  # float32 arithmetic may leave 0.99 of a layer number
    np.testing.assert_allclose(found, expected, rtol=UNIT_RTOL)
    assert file.read_conditions(0, 2) == {"incident_energy": pytest.approx([5e4, 5e4])}
    assert (file.layout, file.attributes["particle"]) == ("showerdata", "photon")


def test_polar_cells_hold_points_by_angle_and_radius(tmp_path: Path) -> None:
    """Four angles from -pi, radii 0, 4, 10 mm; alpha = pi is the same place as -pi."""
    path = point_file(
        tmp_path / "points.h5", [[(-3.0, -0.1, 0, 1.0), (-3.0, 0.0, 2, 2.0), (0.1, 9.0, 1, 4.0)]]
    )
    found = open_file(path).read(0, 1, polar()).energies.reshape(3, 4, 2)
    assert found[0, 0, 0] == 1000.0
    assert found[2, 0, 0] == 2000.0
    assert found[1, 2, 1] == 4000.0
    assert found.sum() == 7000.0


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backward"])
def test_written_points_are_read_back_as_the_same_voxels(
    detector: str, order: int, tmp_path: Path
) -> None:
    showers = random_showers(DETECTORS[detector](), 70).rows(slice(None, None, order))
    path = tmp_path / "points.h5"
    with create_showers(path, "showerdata", showers.geometry, attributes={"pdg": 11}) as writer:
        for first, end in ((0, 1), (1, 1), (1, 70)):
            writer.append(showers.rows(slice(first, end)))
            writer.flush()
    found = open_file(path).read(0, 70, showers.geometry)
    np.testing.assert_allclose(found.energies, showers.energies, rtol=UNIT_RTOL)
    with h5py.File(path) as file:
        hits = np.count_nonzero(showers.energies, axis=1)
        assert file["shape"][:].tolist() == [70, hits.max(), 4]
        assert file["num_points"][:].tolist() == hits.tolist()
        assert file["shower_ids"][:].tolist() == list(range(70))
        assert set(file["pdg"][:].tolist()) == {11}
        assert [len(row) for row in file["showers"][:]] == (4 * hits).tolist()
        np.testing.assert_allclose(
            file["energies"][:, 0], showers.conditions["incident_energy"] / 1000, rtol=UNIT_RTOL
        )


def test_rows_of_one_length_stay_rows(tmp_path: Path) -> None:
    """h5py takes equal rows for a grid when it is left to guess."""
    showers = random_showers(cartesian(), 5)
    full = replace(showers, energies=np.ones_like(showers.energies))
    file = open_file(write(tmp_path / "points.h5", full, "showerdata"))
    np.testing.assert_allclose(file.read(1, 4, cartesian()).energies, 1.0, rtol=UNIT_RTOL)


def with_angles(showers: Showers) -> Showers:
    """Add directions, among them the pole and both ends of the azimuth."""
    polar_angle = np.linspace(0.0, 1.2, len(showers), dtype=np.float32)
    azimuth = np.linspace(-math.pi, math.pi, len(showers), dtype=np.float32)
    conditions = {**showers.conditions, "polar_angle": polar_angle, "azimuth": azimuth}
    return replace(showers, conditions=conditions)


def test_directions_are_conditions_where_they_differ(tmp_path: Path) -> None:
    showers = with_angles(random_showers(cartesian(), 30))
    native = write(tmp_path / "native.h5", showers)
    done = convert(Conversion(native, tmp_path / "points.h5", layout="showerdata"), force=False)
    file = open_file(done.path)
    assert set(file.condition_names) == set(showers.conditions)
    found = file.read_conditions(0, 30)
    # 1e-6 rad: unit vectors in float32.
    np.testing.assert_allclose(found["polar_angle"], showers.conditions["polar_angle"], atol=1e-6)
    np.testing.assert_allclose(found["azimuth"][1:-1], showers.conditions["azimuth"][1:-1], 1e-5)


def test_energy_outside_the_cells_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = point_file(tmp_path / "points.h5", [[(0, 0, 0, 0.95), (99, 0, 1, 0.05)]])
    with caplog.at_level(logging.WARNING, "calo_train"):
        source = open_paths([path], geometry=cartesian())
    assert source.read(0, 1).energies.sum() == pytest.approx(950.0)
    assert "5 % of the energy" in caplog.text


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([(0, 0, 0, 1.0), (0, 0, 7, 0.001)], "2 layers against 8"),
        ([(0, 0, 0, 0.5), (99, 0, 1, 0.5)], "50 % of the energy"),
    ],
)
def test_points_of_another_detector_are_refused(
    points: list[tuple[float, ...]], words: str, tmp_path: Path
) -> None:
    """D3, as far as points tell."""
    path = point_file(tmp_path / "points.h5", [points])
    with pytest.raises(GeometryMismatch, match=words):
        open_paths([path], geometry=cartesian())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pdg": np.asarray([22, 11])}, "2 particles: pdg 11, 22"),
        ({"shape": np.asarray([2, 1, 6])}, "expected (showers, points, 4 or 5)"),
        ({"num_points": np.asarray([1, 2**31 - 1])}, "declares"),
        ({"directions": np.zeros((2, 2))}, "directions"),
        ({"energies": np.zeros((1, 1))}, "lengths differ"),
    ],
)
def test_what_the_layout_does_not_hold_is_refused(
    changed: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """D7, X6."""
    path = point_file(tmp_path / "points.h5", [[(0, 0, 0, 1.0)], [(0, 0, 1, 1.0)]], **changed)
    with pytest.raises(DataError) as caught:
        open_paths([path], geometry=cartesian())
    assert words in str(caught.value)


def test_detector_and_conditions_without_a_place_in_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="any condition"):
        create_showers(
            tmp_path / "a.h5",
            "showerdata",
            cartesian(),
            attributes={},
            condition_names=("incident_energy", "polar_angle"),
        )
    layer = cartesian().layers[0]
    named = replace(layer, axes=(replace(layer.axes[0], name="eta"), layer.axes[1]))
    with pytest.raises(DataError, match="x and y"):
        create_showers(
            tmp_path / "a.h5",
            "showerdata",
            replace(cartesian(), layers=(named,)),
            attributes={},
        )


def core() -> Geometry:
    detector = named_dataset("ild_sample").detector
    assert detector is not None
    return detector


def test_points_at_cells_know_which_data_set_they_fit(tmp_path: Path) -> None:
    with open_paths([embedded_file("ild_sample.h5")], geometry=core()) as source:
        path = write(tmp_path / "points.h5", source.read(0, 100), "showerdata")
    found = set(fitting_datasets(open_file(path)))
    assert {"ild_sample", "ild_photons_core"} <= found
    assert not {"calogan_photons", "calochallenge_ds2"} & found


def test_points_that_are_no_numbers_or_are_cut_are_refused(tmp_path: Path) -> None:
    """D4: NaN reaches the checks as NaN; a row that is no whole number of points is named."""
    path = point_file(tmp_path / "nan.h5", [[(0, 0, 0, math.nan), (0, math.nan, math.nan, 1.0)]])
    assert np.isnan(open_file(path).read(0, 1, cartesian()).energies).sum() == 1
    path = point_file(tmp_path / "cut.h5", [[(0, 0, 0, 1.0)], [(0, 0, 0, 1.0)]])
    with h5py.File(path, "r+") as file:
        file["showers"][1] = np.ones(7, np.float32)
    with pytest.raises(DataError, match="row 1 of 'showers' holds 7 numbers"):
        open_file(path).read(0, 2, cartesian())
