"""Several files are one sequence of rows on one detector, and no other detector gets in."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from shower_files import X, Y, cartesian, edit, polar, random_showers, write

from calo_train.errors import DataError, GeometryMismatch, UsageError
from calo_train.geometry import Geometry
from calo_train.geometry.sources import geometry_to_mapping
from calo_train.showers.dataset import CropConfig, DatasetConfig, open_dataset
from calo_train.showers.paths import expand_paths
from calo_train.showers.showers import Showers, concatenate
from calo_train.showers.source import Crop, open_paths

if TYPE_CHECKING:
    from pathlib import Path


CORE_RANGES = {"x": (1, 3), "y": (1, 3)}


def core() -> Geometry:
    return cartesian().crop(**CORE_RANGES)[0]


def core_of(showers: Showers) -> np.ndarray:
    """Cut the core by plain slicing, as an independent answer."""
    grid = showers.energies.reshape(-1, 2, 3, 4)[:, :, 1:3, 1:3]
    return grid.reshape(len(showers), -1)


def test_rows_of_several_files_follow_each_other(tmp_path: Path) -> None:
    pieces = [random_showers(cartesian(), n, seed=n) for n in (70, 1, 40)]
    paths = [
        write(tmp_path / f"{i}.h5", piece, layout)
        for i, (piece, layout) in enumerate(
            zip(pieces, ("native", "calochallenge", "getting_high"), strict=True)
        )
    ]
    source = open_paths(paths, geometry=cartesian())
    whole = concatenate(pieces)
    assert source.num_showers == 111
    for start, stop in ((0, 111), (69, 72), (70, 71), (110, 111)):
        found = source.read(start, stop)
        np.testing.assert_array_equal(found.energies, whole.energies[start:stop])
    blocks = list(source.blocks(num_rows=10))
    np.testing.assert_array_equal(concatenate(blocks).energies, whole.energies)
    assert [len(block) for block in blocks] == [64, 6, 1, 40]  # whole chunks of whole files
    file, row = source.locate(71)
    assert (file.path, row) == (paths[2], 0)


def test_parent_files_are_cropped_and_core_files_taken_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, inner = random_showers(cartesian(), 30), random_showers(core(), 20, seed=3)
    paths = [
        write(tmp_path / "parent.h5", whole, "getting_high"),
        write(tmp_path / "core.h5", inner, "getting_high"),
    ]
    with caplog.at_level(logging.INFO, "calo_train"):
        source = open_paths(paths, geometry=core(), crop=Crop(cartesian(), CORE_RANGES))
    found = source.read(0, 50)
    np.testing.assert_array_equal(found.energies[:30], core_of(whole))
    np.testing.assert_array_equal(found.energies[30:], inner.energies)
    share = 100 * core_of(whole).sum() / whole.energies.sum()
    assert "parent.h5" in caplog.text
    assert "core.h5" not in caplog.text
    assert "x 1 to 2, y 1 to 2" in caplog.text
    assert f"{share:.1f} %" in caplog.text


def test_larger_file_is_not_cropped_unless_the_data_set_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "parent.h5", random_showers(cartesian(), 5), "getting_high")
    with pytest.raises(GeometryMismatch, match="layer 0, axis x: 2 cells against 3"):
        open_paths([path], geometry=core())


def test_crop_that_does_not_give_the_core_is_a_mistake_of_the_config(tmp_path: Path) -> None:
    path = write(tmp_path / "parent.h5", random_showers(cartesian(), 5))
    with pytest.raises(GeometryMismatch, match="edge 0"):
        open_paths([path], geometry=core(), crop=Crop(cartesian(), {"x": (0, 2), "y": (1, 3)}))


@pytest.mark.parametrize("layout", ["native", "calochallenge", "getting_high"])
def test_another_detector_is_refused_with_both_described(layout: str, tmp_path: Path) -> None:
    """D3: both described, the first difference."""
    path = write(tmp_path / "polar.h5", random_showers(polar(), 5), layout)
    with pytest.raises(GeometryMismatch) as caught:
        open_paths([path], geometry=core())
    text = str(caught.value)
    assert "2 layers of 2 x x 2 y" in text
    assert "first difference" in text
    assert {"native": "3 layers", "calochallenge": "24", "getting_high": "3 layers"}[
        layout
    ] in text
    assert caught.value.exit_code == 3


def test_native_edges_are_compared_and_the_edge_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", random_showers(cartesian(), 5))
    first, second = cartesian().layers
    moved = replace(Y, edges=(*Y.edges[:2], 1.0, *Y.edges[3:]))
    shifted = Geometry("shifted", (first, replace(second, axes=(X, moved))))
    config = DatasetConfig(name="mine", path=str(path), geometry=geometry_to_mapping(shifted))
    with pytest.raises(GeometryMismatch, match=r"layer 1, axis y, edge 2: 1 against 0 mm"):
        open_dataset(config)


def test_attributes_that_contradict_the_geometry_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", random_showers(cartesian(), 5), "getting_high")
    open_paths([path], geometry=cartesian())
    with h5py.File(path, "r+") as file:
        file["3x4/layers"].attrs["cell_mm"] = "5x10"
    with pytest.raises(GeometryMismatch, match=r"cells of 10 mm against 5 mm .*cell_mm"):
        open_paths([path], geometry=cartesian())
    with h5py.File(path, "r+") as file:
        file["3x4/layers"].attrs["axes"] = "shower,layer(z),y,x"
    with pytest.raises(GeometryMismatch, match="axes x, y against y, x"):
        open_paths([path], geometry=cartesian())


def test_file_that_does_not_describe_itself_needs_a_geometry(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", random_showers(cartesian(), 5), "calochallenge")
    with pytest.raises(DataError, match="does not say of which detector"):
        open_paths([path], geometry=None)


def test_file_without_rows_is_refused(tmp_path: Path) -> None:
    """D7: no rows."""
    path = write(tmp_path / "none.h5", random_showers(cartesian(), 0))
    with pytest.raises(DataError, match="no showers"):
        open_paths([path], geometry=None)


def test_fingerprint_follows_the_showers_and_not_the_file(tmp_path: Path) -> None:
    """D8: copies, other names and other layouts are the same; any other content is not."""
    showers = random_showers(cartesian(), 200)
    showers.conditions["incident_energy"][:] = np.round(showers.conditions["incident_energy"])
    native = write(tmp_path / "a.h5", showers)

    def fingerprint(*paths: Path) -> str:
        with open_paths(paths, geometry=cartesian()) as source:
            return source.fingerprint()

    original = fingerprint(native)
    assert (
        fingerprint(write(tmp_path / "b.h5", showers, "calochallenge", note="moved")) == original
    )
    halves = [
        write(tmp_path / f"half{i}.h5", showers.rows(slice(100 * i, 100 * i + 100)))
        for i in range(2)
    ]
    assert fingerprint(*halves) == original
    assert fingerprint(*reversed(halves)) != original
    for key, value in (("energies", 7.0), ("conditions/incident_energy", 5e4)):
        changed = write(tmp_path / "changed.h5", showers)
        edit(changed, key, 123, value)
        assert fingerprint(changed) != original
    assert fingerprint(write(tmp_path / "short.h5", showers.rows(slice(0, 199)))) != original


def test_float64_input_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """D13: float32 inside, and the log says so."""
    showers = random_showers(cartesian(), 4)
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["incident_energies"] = showers.conditions["incident_energy"][:, None]
            file["showers"] = showers.energies.astype(np.float64)
    config = DatasetConfig(
        name="mine", path=f"{tmp_path}/*.h5", geometry=geometry_to_mapping(cartesian())
    )
    with caplog.at_level(logging.INFO, "calo_train"):
        found = open_dataset(config).read(0, 8)
    assert caplog.messages == ["energies are stored as float64 and read as float32"]
    assert found.energies.dtype == np.float32


def test_rounding_is_known_row_by_row(tmp_path: Path) -> None:
    """D13: files with and without rounding may be mixed."""
    paths = [
        write(tmp_path / "a.h5", random_showers(cartesian(), 3), mantissa_bits=10),
        write(tmp_path / "b.h5", random_showers(cartesian(), 2)),
    ]
    source = open_paths(paths, geometry=None)
    assert source.mantissa_bits.tolist() == [10, 10, 10, 0, 0]


def test_paths_may_be_lists_globs_and_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """U8: spaces, unicode, ~, brackets."""
    folder = tmp_path / "größe, a=1 b"
    folder.mkdir()
    for name in ("b.h5", "a.h5", "c[1].h5"):
        write(folder / name, random_showers(cartesian(), 3))
    monkeypatch.setenv("HOME", str(tmp_path))

    def names(*patterns: str) -> list[str]:
        return [path.name for path in expand_paths(patterns, where="dataset.path")]

    assert names(f"{folder}/*.h5") == ["a.h5", "b.h5", "c[1].h5"]
    assert names(f"{folder}/b.h5", f"{folder}/a.h5") == ["b.h5", "a.h5"]
    assert names("~/größe, a=1 b/[ab].h5") == ["a.h5", "b.h5"]
    assert names(f"{folder}/c[1].h5") == ["c[1].h5"]


def test_path_without_a_match_names_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "photons_train.h5").touch()
    for given, words in (
        ("photon_train.h5", "photons_train.h5"),
        ("*.hdf5", "photons_train.h5"),
        ("data/photons.h5", "what follows it does not"),
        (".", "is a folder"),
    ):
        with pytest.raises(DataError) as caught:
            expand_paths([str(tmp_path / given)], where="dataset.path")
        assert words in str(caught.value)


def test_file_given_twice_is_refused(tmp_path: Path) -> None:
    """Its showers would be in the training and in the test split."""
    path = tmp_path / "a.h5"
    path.touch()
    (tmp_path / "link.h5").symlink_to(path)
    for patterns in ([f"{tmp_path}/*.h5"], [str(path), str(path)]):
        with pytest.raises(DataError, match="twice"):
            expand_paths(patterns, where="dataset.path")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", None),
        ("path", [1]),
        ("crop", CropConfig({"name": "x"}, {"x": [1]})),
    ],
)
def test_ill_formed_paths_and_crops_are_usage_errors(key: str, value: object) -> None:
    config = DatasetConfig(name="mine", path="a.h5")
    setattr(config, key, value)
    with pytest.raises(UsageError):
        _ = config.core if key == "crop" else config.patterns


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_fraction": 0.95},
        {"validation_fraction": 0.0},
        {"invalid_showers": "keep"},
        {"threshold": "0.1"},
        {"memory_budget": "4GeV"},
        {"energy_range": "100:10GeV"},
        {"layout": "geting_high"},
    ],
)
def test_ill_written_values_are_refused_before_any_file_is_opened(
    wrong: dict[str, object],
) -> None:
    with pytest.raises(UsageError):
        DatasetConfig(name="mine", path="a.h5", **wrong)
