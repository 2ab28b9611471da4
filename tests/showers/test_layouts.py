"""What is written is read back in house units, and nothing foreign or broken gets through."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from shower_files import DETECTORS, cartesian, polar, random_showers, write

from calo_train.errors import DataError, MachineError
from calo_train.geometry import geometry_from_mapping
from calo_train.showers.layouts import create_showers, open_file
from calo_train.showers.paths import embedded_file

if TYPE_CHECKING:
    from collections.abc import Callable

# MeV are written as GeV and read back: two roundings of float32.
UNIT_RTOL = 2.0**-22
PAIRS = [("native", name) for name in DETECTORS] + [
    ("calochallenge", "polar"),
    ("calochallenge", "ragged"),
    ("getting_high", "cartesian"),
    ("getting_high", "polar"),
]


@pytest.mark.parametrize(("layout", "detector"), PAIRS)
def test_showers_appended_in_pieces_are_read_back(
    layout: str, detector: str, tmp_path: Path
) -> None:
    geometry = DETECTORS[detector]()
    showers = random_showers(geometry, 150)
    path = tmp_path / "showers.h5"
    with create_showers(path, layout, geometry, attributes={"particle": "photon"}) as writer:
        for first, end in ((0, 1), (1, 70), (70, 70), (70, 150)):
            writer.append(showers.rows(slice(first, end)))
            writer.flush()
    file = open_file(path)
    found = file.read(0, 150, geometry)
    assert (file.layout, file.num_showers) == (layout, 150)
    assert file.attributes["particle"] == "photon"
    np.testing.assert_array_equal(found.energies, showers.energies)
    np.testing.assert_allclose(
        found.conditions["incident_energy"], showers.conditions["incident_energy"], UNIT_RTOL
    )
    np.testing.assert_array_equal(file.read(68, 75, geometry).energies, showers.energies[68:75])


@settings(deadline=None)
@given(cuts=st.lists(st.integers(0, 300), max_size=8), num_threads=st.integers(1, 3))
def test_any_pieces_and_threads_write_the_same_file(cuts: list[int], num_threads: int) -> None:
    """Chunks hold 64 showers here; 300 end inside one."""
    showers = random_showers(polar(), 300)
    ends = sorted({0, 300, *cuts})
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "pieces.h5", Path(folder) / "whole.h5"]
        with create_showers(
            paths[0], "native", polar(), attributes={}, num_threads=num_threads
        ) as writer:
            for first, end in itertools.pairwise(ends):
                writer.append(showers.rows(slice(first, end)))
        with create_showers(paths[1], "native", polar(), attributes={}) as writer:
            writer.append(showers)
        stored = [_chunks(path) for path in paths]
    assert stored[0] == stored[1]
    assert len(stored[0]) == 5


def _chunks(path: Path) -> list[bytes]:
    """Give the chunks of a file's energies as they are stored."""
    with h5py.File(path) as file:
        array = file["energies"].id
        places = [
            array.get_chunk_info(index).chunk_offset for index in range(array.get_num_chunks())
        ]
        return [bytes(array.read_direct_chunk(place)[1]) for place in places]


def test_getting_high_converts_gev_at_the_door() -> None:
    path = embedded_file("ild_sample.h5")
    with h5py.File(path) as raw:
        energy = raw["10x10/energy"][:5, 0].astype(np.float64)
        shape = raw["10x10/layers"].shape
    file = open_file(path)
    found = file.read_conditions(0, 5)["incident_energy"]
    np.testing.assert_allclose(found, 1000.0 * energy, rtol=2.0**-24)
    assert file.mantissa_bits == 10
    assert file.columns.grids == (shape[1:],)


def test_native_file_written_by_hand_as_documented(tmp_path: Path) -> None:
    """D13: float64 in one piece, YAML geometry, no units: house units and float32 inside."""
    geometry = {
        "name": "prototype",
        "axes": [
            {"name": "x", "start": -20.0, "stop": 20.0, "cells": 4},
            {"name": "y", "start": -20.0, "stop": 20.0, "cells": 4},
        ],
        "depth": 0.0,
        "layer_thicknesses": [10.0, 10.0],
    }
    energies = np.random.default_rng(2).random((6, 32))
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file.attrs.update(layout="native", layout_version=1, geometry=yaml.safe_dump(geometry))
        file["energies"] = energies
        file["conditions/incident_energy"] = np.full(6, 5e4)
        file["conditions/polar_angle"] = np.full(6, 90.0)
        file["conditions/polar_angle"].attrs["unit"] = "deg"
    opened = open_file(tmp_path / "own.h5")
    found = opened.read(0, 6, geometry_from_mapping(geometry))
    assert opened.geometry == geometry_from_mapping(geometry)
    assert found.energies.dtype == np.float32
    np.testing.assert_array_equal(found.energies, energies.astype(np.float32))
    np.testing.assert_allclose(found.conditions["polar_angle"], np.pi / 2, rtol=1e-7)
    assert opened.condition_names == ("incident_energy", "polar_angle")


def test_layouts_without_a_place_for_something_refuse_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="native"):
        create_showers(tmp_path / "a.h5", "getting_high", DETECTORS["ragged"](), attributes={})
    with pytest.raises(DataError, match="polar_angle"):
        create_showers(
            tmp_path / "a.h5",
            "calochallenge",
            polar(),
            attributes={},
            condition_names=("incident_energy", "polar_angle"),
        )
    assert not (tmp_path / "a.h5").exists()
    with pytest.raises(MachineError):
        create_showers(tmp_path / "none" / "a.h5", "native", polar(), attributes={})


FILLS_THE_DISK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from shower_files import cartesian, random_showers
from calo_train.errors import MachineError
from calo_train.showers.layouts import create_showers
writer = create_showers(Path(sys.argv[2]), "native", cartesian(), attributes={})
showers = random_showers(cartesian(), 500)
append = lambda: [writer.append(showers) for _ in range(100)]
for operation in (append, writer.flush, writer.close):
    try:
        operation()
        print("no error")
    except MachineError as error:
        print(error.what)
"""


def test_disk_that_is_full_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    """The file size limit stands for the disk; HDF5 alone crashes the process at its exit."""
    program = [sys.executable, "-c", FILLS_THE_DISK, str(Path(__file__).parent)]
    done = subprocess.run(
        [*program, str(tmp_path / "full.h5")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    assert done.stdout == 3 * "cannot write: File too large\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "full.h5").stat().st_size <= 200_000


@pytest.mark.parametrize("cut", [1, 1000, 5_000_000])
def test_truncated_file_says_what_is_there_and_what_should_be(cut: int, tmp_path: Path) -> None:
    """D1: cut at any point, one byte included."""
    content = embedded_file("ild_sample.h5").read_bytes()
    path = tmp_path / "cut.h5"
    path.write_bytes(content[:-cut])
    with pytest.raises(DataError, match="truncated") as caught:
        open_file(path)
    assert str(len(content) - cut) in caught.value.what
    assert str(len(content)) in caught.value.what


def test_flipped_bytes_name_the_rows_that_are_damaged(tmp_path: Path) -> None:
    path = write(tmp_path / "showers.h5", random_showers(cartesian(), 200))
    with h5py.File(path) as file:
        place = file["energies"].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + 8 : place.byte_offset + 40] = bytes(32)
    path.write_bytes(content)
    file = open_file(path)
    assert len(file.read(0, 64, cartesian())) == 64
    with pytest.raises(DataError, match="rows 64 to 127"):
        file.read(64, 128, cartesian())


def test_what_is_not_hdf5_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("incident energies")
    (tmp_path / "empty.h5").touch()
    for name, words in (("text.h5", "not an HDF5"), ("empty.h5", "empty"), ("no.h5", "no such")):
        with pytest.raises(DataError, match=words):
            open_file(tmp_path / name)
    with pytest.raises(DataError, match="folder"):
        open_file(tmp_path)


def broken(path: Path, name: str) -> Path:
    """Write a file with one thing wrong."""
    with h5py.File(path, "w") as file:
        if name == "foreign":
            file["electrons/energy_deposits"] = np.ones((3, 4))
        elif name == "missing key":
            file["3x4/layers"] = np.ones((3, 2, 3, 4))
        elif name == "wrong shape":
            file["3x4/layers"] = np.ones((3, 2, 4, 4))
            file["3x4/energy"] = np.ones((3, 1))
        elif name == "lengths":
            file["incident_energies"] = np.ones((2, 1))
            file["showers"] = np.ones((3, 24))
        elif name == "flat condition":
            file["incident_energies"] = np.ones((3, 2))
            file["showers"] = np.ones((3, 24))
        elif name == "text":
            file["incident_energies"] = np.full((3, 1), b"5")
            file["showers"] = np.ones((3, 24))
        elif name == "unit":
            file["incident_energies"] = np.ones((3, 1))
            file["showers"] = np.ones((3, 24))
            file["incident_energies"].attrs["unit"] = "GeV"
        elif name == "bits":
            file["incident_energies"] = np.ones((3, 1))
            file["showers"] = np.ones((3, 24))
            file["showers"].attrs["mantissa_bits"] = 60
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("foreign", ["electrons/energy_deposits (3, 4)", "getting_high", "closest"]),
        ("missing key", ["3x4/energy", "missing", "3x4/layers (3, 2, 3, 4)"]),
        ("wrong shape", ["(3, 2, 4, 4)", "(n, layers, 3, 4)"]),
        ("lengths", ["3 rows in 'showers'", "2 rows in 'incident_energies'"]),
        ("flat condition", ["(3, 2)", "(n, 1)"]),
        ("text", ["not numbers"]),
        ("unit", ["GeV", "MeV", "--energy-unit GeV"]),
        ("bits", ["mantissa_bits is 60", "23"]),
    ],
)
def test_wrong_content_is_described(name: str, words: list[str], tmp_path: Path) -> None:
    """D7: what is inside, what was expected, the known layouts."""
    with pytest.raises(DataError) as caught:
        open_file(broken(tmp_path / "broken.h5", name))
    for word in words:
        assert word in str(caught.value)


def test_links_and_values_outside_the_file_are_not_followed(tmp_path: Path) -> None:
    """X5: external links, virtual data sets and external storage."""
    showers = random_showers(polar(), 8)
    other = write(tmp_path / "other.h5", showers, "calochallenge")
    cases = ("external.h5", "virtual.h5", "outside.h5", "soft.h5")
    for name in cases:
        with h5py.File(tmp_path / name, "w") as file:
            file["incident_energies"] = np.ones((8, 1))
            if name == "external.h5":
                file["showers"] = h5py.ExternalLink(str(other), "showers")
            elif name == "soft.h5":
                file["showers"] = h5py.SoftLink("/incident_energies")
            elif name == "virtual.h5":
                layout = h5py.VirtualLayout((8, 24), "f4")
                layout[:] = h5py.VirtualSource(str(other), "showers", (8, 24))
                file.create_virtual_dataset("showers", layout)
            else:
                (tmp_path / "raw").write_bytes(bytes(8 * 24 * 4))
                file.create_dataset(
                    "showers", (8, 24), "f4", external=[(str(tmp_path / "raw"), 0, 768)]
                )
        with pytest.raises(DataError, match="not followed"):
            open_file(tmp_path / name)


def test_absurd_declared_sizes_cost_nothing(tmp_path: Path) -> None:
    """X6: a kilobyte that declares terabytes is refused before anything is allocated."""
    shapes = {"rows": (10**9, 24), "voxels": (10, 10**9)}
    for name, shape in shapes.items():
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("showers", shape, "f4", chunks=(8, 24), compression="gzip")
            file.create_dataset("incident_energies", (shape[0], 1), "f4", chunks=(8, 1))
        started = time.monotonic()
        with pytest.raises(DataError, match="declares"):
            open_file(path)
        assert time.monotonic() - started < 1.0


def test_rows_that_were_never_written_are_not_zeros(tmp_path: Path) -> None:
    path = write(tmp_path / "showers.h5", random_showers(cartesian(), 64))
    with h5py.File(path, "r+") as file:
        for key in ("energies", "conditions/incident_energy"):
            file[key].resize(5000, axis=0)
    with pytest.raises(DataError, match="never finished"):
        open_file(path)


def test_native_geometry_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "showers.h5", random_showers(cartesian(), 4))
    for text in ("", "{]", "name: x", '{"name": "x", "axes": 3}', "[1, 2]", "&a [*a]"):
        with h5py.File(path, "r+") as file:
            file.attrs["geometry"] = text
        with pytest.raises(DataError, match="geometry"):
            open_file(path)


def test_control_characters_of_foreign_text_are_shown_as_text(tmp_path: Path) -> None:
    """X7: a generator's name must not move the cursor."""
    path = write(tmp_path / "a.h5", random_showers(cartesian(), 3), generator="\x1b[2Jevil")
    assert open_file(path).attributes["generator"] == "\\x1b[2Jevil"


def test_forked_process_opens_the_file_itself(tmp_path: Path) -> None:
    """HDF5 handles must not be shared; a file that was replaced in between is noticed."""
    geometry = cartesian()
    path = write(tmp_path / "showers.h5", random_showers(geometry, 100))
    file = open_file(path)
    parents_handle = file._handle

    def read_in_child() -> str:
        total = file.read(90, 100, geometry).energies.sum()
        return f"{total:.9g} {file._handle is parents_handle}"

    total = file.read(90, 100, geometry).energies.sum()
    assert in_child(read_in_child) == f"{total:.9g} False"
    write(tmp_path / "other.h5", random_showers(geometry, 100, seed=2)).replace(path)
    assert "changed while it was in use" in in_child(read_in_child)
    assert file.read(90, 100, geometry).energies.sum() == total


def in_child(function: Callable[[], str]) -> str:
    """Run a function in a forked process and give its text, or that of its error."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = function()
        except DataError as error:
            text = str(error)
        os.write(sender, text.encode())
        os._exit(0)
    os.close(sender)
    os.waitpid(child, 0)
    with os.fdopen(receiver) as pipe:
        return pipe.read()
