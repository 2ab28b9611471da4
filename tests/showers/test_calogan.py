"""The CaloGAN layout: three arrays of different grids are one shower of 504 voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from shower_files import cartesian, ragged, random_showers, write

from calo_train.cli.inputs import named_dataset
from calo_train.errors import GeometryMismatch
from calo_train.showers.fitting import fitting_datasets
from calo_train.showers.layouts import open_file
from calo_train.showers.source import open_paths

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.geometry import Geometry


def detector() -> Geometry:
    found = named_dataset("calogan_photons").detector
    assert found is not None
    return found


def test_calogan_drops_overflow_on_reading_and_writes_none(tmp_path: Path) -> None:
    """Keys, shapes and units of hep-lbdl/CaloGAN; the last index of a layer is the fastest."""
    random = np.random.default_rng(3)
    shapes = ((3, 96), (12, 12), (12, 6))
    layers = [random.random((4, *shape)).astype(np.float32) for shape in shapes]
    with h5py.File(tmp_path / "gamma.hdf5", "w") as file:
        for index, values in enumerate(layers):
            file[f"layer_{index}"] = values
        file["energy"] = np.asarray([[1.0], [10.0], [50.5], [100.0]])
        file["overflow"] = np.full((4, 3), 7.0)
    geometry = detector()
    opened = open_file(tmp_path / "gamma.hdf5")
    found = opened.read(0, 4, geometry)
    assert opened.layout == "calogan"
    assert opened.shape_words == "3 layers of 3x96, 12x12, 12x6 (504 voxels)"
    flat = np.concatenate([values.reshape(4, -1) for values in layers], axis=1)
    np.testing.assert_array_equal(found.energies, flat)
    assert found.conditions["incident_energy"].tolist() == [1000.0, 10000.0, 50500.0, 100000.0]
    with h5py.File(write(tmp_path / "ours.h5", found, "calogan")) as file:
        assert file["overflow"].shape == (4, 3)
        assert not file["overflow"][:].any()
        for index, values in enumerate(layers):
            np.testing.assert_array_equal(file[f"layer_{index}"][:], values)
        assert file["energy"][:].tolist() == [[1.0], [10.0], [50.5], [100.0]]


def test_file_knows_the_data_sets_of_all_three_particles(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", random_showers(detector(), 5), "calogan")
    assert fitting_datasets(open_file(path)) == [
        "calogan_photons",
        "calogan_pions",
        "calogan_positrons",
    ]


def test_layers_of_another_detector_are_refused(tmp_path: Path) -> None:
    """D3: the first layer that differs, by its cells."""
    path = write(tmp_path / "a.h5", random_showers(ragged(), 5), "calogan")
    with pytest.raises(GeometryMismatch, match=r"layer 0: \(3, 96\) cells against \(3, 4\)"):
        open_paths([path], geometry=detector())
    with pytest.raises(GeometryMismatch, match="2 layers against 3"):
        open_paths([path], geometry=cartesian())
