"""calo-data fetch as people run it, against a server on this machine."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

import commands
import numpy as np
import pytest
from record_server import Archive, serving

from calo_train.cli.inputs import named_dataset
from calo_train.showers.layouts import create_showers
from calo_train.showers.showers import Showers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NUM_SHOWERS = 200


def pions(path: Path) -> bytes:
    """Give a small file of data set 1: energies of powers of two, all of them visible."""
    geometry = named_dataset("calochallenge_ds1_pions").detector
    assert geometry is not None
    random = np.random.default_rng(5)
    incident = (2.0 ** random.integers(8, 23, NUM_SHOWERS)).astype(np.float32)
    shares = random.exponential(1.0, (NUM_SHOWERS, geometry.num_voxels))
    energies = incident[:, None] * shares / geometry.num_voxels
    with create_showers(path, "calochallenge", geometry, attributes={}) as writer:
        writer.append(
            Showers(energies.astype(np.float32), {"incident_energy": incident}, geometry)
        )
    return path.read_bytes()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    content = pions(tmp_path / "made.h5")
    files = {
        "dataset_1_pions_1.hdf5": content,
        "dataset_1_pions_2.hdf5": content,
        "dataset_1_photons_1.hdf5": b"of another data set",
    }
    with serving(Archive(files)) as served:
        yield served


def fetch_words(archive: Archive, folder: Path, *more: str) -> list[str]:
    return [
        *("fetch", "calochallenge_ds1_pions", "--to", str(folder), "--mirror", archive.url),
        *more,
    ]


def test_fetched_files_are_those_of_the_data_set_and_fit_it(
    archive: Archive, tmp_path: Path
) -> None:
    folder = tmp_path / "my data"
    done = commands.run("calo-data", *fetch_words(archive, folder), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == [
        "dataset_1_pions_1.hdf5",
        "dataset_1_pions_2.hdf5",
    ]
    assert f"wrote: {folder}/dataset_1_pions_1.hdf5" in done.stdout
    assert "md5 as published" in done.stderr
    shown = done.stdout[done.stdout.index("next: calo-data ") :].splitlines()[0]
    assert shown.endswith("--dataset calochallenge_ds1_pions")
    first = str(folder / "dataset_1_pions_1.hdf5")
    words = ("check", first, "--dataset", "calochallenge_ds1_pions")
    checked = commands.run("calo-data", *words, cwd=tmp_path)
    assert "good, 200 showers" in checked.stdout, checked.stderr
    assert "warning" not in checked.stderr
    described = commands.run("calo-data", "info", first, cwd=tmp_path).stdout
    assert "fits        calochallenge_ds1_pions\n" in described


def test_list_shows_files_sizes_and_checksums_and_fetches_nothing(
    archive: Archive, tmp_path: Path
) -> None:
    words = fetch_words(archive, tmp_path / "none", "--list", "--only", "*_1.hdf5")
    shown = commands.run("calo-data", *words, cwd=tmp_path).stdout
    assert shown.startswith("dataset_1_pions_1.hdf5  ")
    assert " KiB  md5 " in shown
    assert "1 files" in shown
    found = json.loads(commands.run("calo-data", *words, "--json", cwd=tmp_path).stdout)
    assert found[0]["size"] == len(archive.files["dataset_1_pions_1.hdf5"])
    assert archive.ranges == []
    assert not (tmp_path / "none").exists()


def test_killed_command_goes_on_where_it_stopped(archive: Archive, tmp_path: Path) -> None:
    """D9: kill -9 while the server has sent a part."""
    archive.fault, archive.cut_after = "stall", 50_000
    words = fetch_words(archive, tmp_path, "--only", "*_2.hdf5")
    part = tmp_path / "dataset_1_pions_2.hdf5.part"
    process = commands.start("calo-data", *words, cwd=tmp_path)
    deadline = time.monotonic() + commands.TIMEOUT
    while not (part.exists() and part.stat().st_size == 50_000):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    archive.fault, archive.cut_after = "", 0
    done = commands.run("calo-data", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on with dataset_1_pions_2.hdf5.part" in done.stderr
    assert archive.ranges == ["", "bytes=50000-"]
    content = archive.files["dataset_1_pions_2.hdf5"]
    assert (tmp_path / "dataset_1_pions_2.hdf5").read_bytes() == content
    assert not part.exists()


def test_without_a_network_exit_code_5_names_address_and_folder(tmp_path: Path) -> None:
    """D9: nothing listens on a port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{taken.getsockname()[1]}"
    words = ("fetch", "calogan_photons", "--to", str(tmp_path), "--mirror", mirror)
    done = commands.run("calo-data", *words, cwd=tmp_path)
    address = f"{mirror}/public-api/datasets/pvn3xc3wy5/files"
    commands.require_message(done, 5, address, "doi.org/10.17632/pvn3xc3wy5.1", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fetch", "calochallange_ds2"), "nearest: calochallenge_ds2"),
        (("fetch", "native"), "no published files"),
    ],
)
def test_data_sets_without_a_record_are_usage_errors(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    commands.require_message(commands.run("calo-data", *words, cwd=tmp_path), 2, message)
