"""Published files come whole and verified or not at all, from a real server on this machine."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from record_server import Archive, serving

from calo_train.errors import DataError, MachineError, UsageError
from calo_train.showers import download
from calo_train.showers.download import download_all
from calo_train.showers.records import PublishedFile, published_files
from calo_train.showers.web import Refused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ZENODO, MENDELEY = "10.5281/zenodo.123", "10.17632/abc1.2"
CONTENT = os.urandom(300_000)


@pytest.fixture
def archive() -> Iterator[Archive]:
    with serving(Archive({"photons_1.hdf5": CONTENT, "pions_1.hdf5": b"pions"})) as served:
        yield served


def photons(archive: Archive, folder: Path) -> list[PublishedFile]:
    return published_files(ZENODO, "photons_*", folder=folder, mirror=archive.url)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("doi", "algorithm"), [(ZENODO, "md5"), (MENDELEY, "sha256")])
def test_files_of_a_record_are_found_fetched_and_left_alone_the_next_time(
    doi: str, algorithm: str, archive: Archive, tmp_path: Path
) -> None:
    files = published_files(doi, "*", folder=tmp_path, mirror=archive.url)
    assert [(file.name, file.size) for file in files] == [
        ("photons_1.hdf5", len(CONTENT)),
        ("pions_1.hdf5", 5),
    ]
    assert {file.algorithm for file in files} == {algorithm}
    paths = download_all(files, tmp_path / "new folder")
    assert [path.read_bytes() for path in paths] == [CONTENT, b"pions"]
    assert download_all(files, tmp_path / "new folder") == paths
    assert archive.ranges == ["", ""]


def test_cut_connections_are_continued_where_they_stopped(
    archive: Archive, tmp_path: Path
) -> None:
    """D9: three connections of a third each, each asking only for the rest."""
    archive.cut_after = 100_000
    paths = download_all(photons(archive, tmp_path), tmp_path, pause=0.0)
    assert paths[0].read_bytes() == CONTENT
    assert archive.ranges == ["", "bytes=100000-", "bytes=200000-"]
    assert names(tmp_path) == ["photons_1.hdf5"]


def test_server_that_cannot_continue_sends_the_whole_file(
    archive: Archive, tmp_path: Path
) -> None:
    archive.fault = "no range"
    (tmp_path / "photons_1.hdf5.part").write_bytes(CONTENT[:1234])
    paths = download_all(photons(archive, tmp_path), tmp_path)
    assert paths[0].read_bytes() == CONTENT
    assert archive.ranges == ["bytes=1234-"]


def test_file_that_stays_cut_is_kept_as_a_part_for_the_next_command(
    archive: Archive, tmp_path: Path
) -> None:
    archive.fault, archive.cut_after = "no range", 1000
    with pytest.raises(MachineError, match="1000 of 300000 bytes") as caught:
        download_all(photons(archive, tmp_path), tmp_path, pause=0.0)
    assert "goes on where it stopped" in caught.value.do
    assert names(tmp_path) == ["photons_1.hdf5.part"]
    archive.fault, archive.cut_after = "", 0
    assert download_all(photons(archive, tmp_path), tmp_path)[0].read_bytes() == CONTENT
    assert archive.ranges[-1] == "bytes=1000-"


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("page", Refused, "web page"),
        ("missing", Refused, "404"),
        ("busy", MachineError, "503"),
        ("altered", DataError, "wrong checksum: md5"),
        ("longer", DataError, "more came"),
    ],
)
def test_what_is_not_the_file_never_gets_its_name(
    fault: str,
    kind: type[Exception],
    words: str,
    archive: Archive,
    tmp_path: Path,
) -> None:
    """A part that is damaged is deleted, so that the next command does not build on it."""
    archive.fault = fault
    with pytest.raises(kind, match=words):
        download_all(photons(archive, tmp_path), tmp_path, pause=0.0)
    assert names(tmp_path) == []


def test_damaged_part_of_an_earlier_command_is_found_by_its_checksum(
    archive: Archive, tmp_path: Path
) -> None:
    (tmp_path / "photons_1.hdf5.part").write_bytes(bytes(1000))
    with pytest.raises(DataError, match="wrong checksum"):
        download_all(photons(archive, tmp_path), tmp_path)
    assert names(tmp_path) == []
    assert download_all(photons(archive, tmp_path), tmp_path)[0].read_bytes() == CONTENT


def test_disk_that_is_too_small_is_refused_before_anything_is_fetched(
    archive: Archive, tmp_path: Path
) -> None:
    files = [replace(file, size=1 << 60) for file in photons(archive, tmp_path)]
    with pytest.raises(MachineError, match="not enough disk space"):
        download_all(files, tmp_path)
    assert names(tmp_path) == []
    assert archive.ranges == []


def test_disk_that_fills_up_is_an_error_of_the_machine(archive: Archive, tmp_path: Path) -> None:
    part = tmp_path / "photons_1.hdf5.part"
    part.symlink_to("/dev/full")
    with pytest.raises(MachineError, match="disk is full"):
        download_all(photons(archive, tmp_path), tmp_path)
    assert names(tmp_path) == []


def test_two_commands_do_not_fill_one_file(archive: Archive, tmp_path: Path) -> None:
    with (
        download._owned(tmp_path / "photons_1.hdf5.part"),
        pytest.raises(MachineError, match="another process"),
    ):
        download_all(photons(archive, tmp_path), tmp_path)


def test_file_of_the_same_name_is_not_replaced(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "photons_1.hdf5").write_bytes(b"mine")
    with pytest.raises(UsageError, match="not the published one"):
        download_all(photons(archive, tmp_path), tmp_path)
    assert (tmp_path / "photons_1.hdf5").read_bytes() == b"mine"


def test_without_a_network_the_message_says_what_to_put_where(tmp_path: Path) -> None:
    """D9: nothing listens on a port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(Unreachable) as caught:
        published_files(ZENODO, "*", folder=tmp_path, mirror=mirror)
    assert caught.value.exit_code == 5
    assert f"{mirror}/api/records/123" in caught.value.where
    assert f"https://doi.org/{ZENODO}" in caught.value.do
    assert str(tmp_path) in caught.value.do


@pytest.mark.parametrize("name", ["../up.h5", "/etc/a.h5", ".hidden", "a\\b"])
def test_record_cannot_name_a_file_outside_the_folder(name: str, tmp_path: Path) -> None:
    """X4, X8: what a server says must not decide where we write."""
    with serving(Archive({name: b"x"})) as served, pytest.raises(DataError, match="file name"):
        published_files(ZENODO, "*", folder=tmp_path, mirror=served.url)


def test_record_that_is_none_is_refused(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no archive"):
        published_files("10.1000/182", "*", folder=tmp_path)
    with pytest.raises(DataError, match=r"photons_1\.hdf5, pions_1\.hdf5"):
        published_files(ZENODO, "electrons*", folder=tmp_path, mirror=archive.url)
    monkeypatch.setattr(archive, "zenodo", lambda: {"status": 404})
    with pytest.raises(DataError, match="record cannot be read"):
        published_files(ZENODO, "*", folder=tmp_path, mirror=archive.url)


def test_address_of_another_kind_is_never_opened(tmp_path: Path) -> None:
    """X8: a record must not make us read a local file."""
    local = PublishedFile("a.h5", 3, "file:///etc/hostname", "md5", "0" * 32)
    with pytest.raises(DataError, match="not a web address"):
        download_all([local], tmp_path)


def test_progress_and_continuation_are_logged(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "photons_1.hdf5.part").write_bytes(CONTENT[:1024])
    with caplog.at_level(logging.INFO, "calo_train"):
        download_all(photons(archive, tmp_path), tmp_path)
    assert "going on with photons_1.hdf5.part at 1 KiB" in caplog.text
    assert "md5 as published" in caplog.text
