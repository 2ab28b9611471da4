"""calo-sample as installed: the same bits however it is run, and nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import commands
import h5py
import numpy as np
import pytest

from calo_train.showers.source import open_paths

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = ("-n", "90", "--energy", "20:80GeV", "--seed", "0", "--threads", "1")


def _showers(path: Path) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    with open_paths([path], geometry=None) as source:
        showers = source.read(0, source.num_showers)
        return showers.energies, showers.conditions["incident_energy"]


def _equal(first: Path, second: Path) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip(_showers(first), _showers(second), strict=True)
    )


@pytest.fixture
def whole(finished_run: Path) -> Path:
    out = finished_run.parent / "whole.h5"
    done = commands.run(
        "calo-sample", str(finished_run), *REQUEST, "--out", str(out), cwd=out.parent
    )
    assert done.returncode == 0, done.stderr
    return out


def _sample(run: Path, out: str, *arguments: str) -> Path:
    done = commands.run("calo-sample", str(run), *arguments, "--out", out, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    return run.parent / out


def test_batch_size_and_threads_do_not_change_a_bit(finished_run: Path, whole: Path) -> None:
    """S1."""
    start = REQUEST[:-2]
    assert _equal(whole, _sample(finished_run, "b.h5", *start, "--threads", "2"))
    assert _equal(whole, _sample(finished_run, "c.h5", *start, "--batch-size", "7"))


def test_merged_shards_equal_the_whole(finished_run: Path, whole: Path) -> None:
    """S2: three shards that cut tiles; a missing one is named."""
    shards = [
        _sample(finished_run, f"s{index}.h5", *REQUEST, "--shard", f"{index}/3")
        for index in range(3)
    ]
    cwd = finished_run.parent
    done = commands.run("calo-data", "merge", "s0.h5", "s2.h5", "-o", "merged.h5", cwd=cwd)
    commands.require_message(done, 3, "1 are missing", "--shard")
    names = [path.name for path in shards]
    done = commands.run("calo-data", "merge", *names, "-o", "merged.h5", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert _equal(whole, cwd / "merged.h5")


def test_killed_sampling_goes_on_to_the_same_bits(finished_run: Path) -> None:
    """S3: kill -9 after the first tile; the final name appears only when complete."""
    cwd = finished_run.parent
    long = ("-n", "1600", "--energy", "20:80GeV", "--threads", "1")
    process = commands.start("calo-sample", str(finished_run), *long, "--out", "k.h5", cwd=cwd)
    tiles = cwd / ".k.h5.tiles"
    while len(list(tiles.glob("0*.npz"))) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=commands.TIMEOUT)
    assert not (cwd / "k.h5").exists()
    done = commands.run("calo-sample", str(finished_run), *long, "--out", "k.h5", cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert "going on" in done.stderr
    assert not tiles.exists()
    assert _equal(cwd / "k.h5", _sample(finished_run, "one_go.h5", *long))


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_signalled_group_stops_in_order_and_goes_on(
    finished_run: Path, sent: signal.Signals, code: int
) -> None:
    """S3: batch systems and terminals signal the whole group; no tile in hand is lost."""
    cwd = finished_run.parent
    process = _started_on_two_threads(finished_run)
    os.killpg(process.pid, sent)
    _, messages = process.communicate(timeout=commands.TIMEOUT)
    assert process.returncode == code, messages
    assert "goes on where it stopped" in messages
    assert "Traceback" not in messages
    assert list((cwd / ".w.h5.tiles").glob("0*.npz"))
    assert not list(cwd.glob("*w.h5"))


def test_full_disk_keeps_the_tiles_and_a_larger_one_goes_on(
    finished_run: Path, tmp_path: Path
) -> None:
    """S3: the disk fills up between the check and the end."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(folder)]
    subprocess.run(mount, check=True)
    try:
        arguments = (str(finished_run), "-n", "800", "--energy", "20:80GeV", "--threads", "1")
        done = commands.run("calo-sample", *arguments, "--out", str(folder / "f.h5"), cwd=tmp_path)
        commands.require_message(done, 5, "disk is full", "free some space")
        assert [path.name for path in folder.iterdir()] == [".f.h5.tiles"]
        subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
        done = commands.run("calo-sample", *arguments, "--out", str(folder / "f.h5"), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "going on" in done.stderr
        assert _equal(folder / "f.h5", _sample(finished_run, "whole.h5", *arguments[1:]))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _started_on_two_threads(run: Path) -> subprocess.Popen[str]:
    """Start a long request in a process group of its own; give it after a tile."""
    arguments = ("-n", "200000", "--energy", "20:80GeV", "--threads", "2", "--out", "w.h5")
    process = commands.start("calo-sample", str(run), *arguments, cwd=run.parent)
    while not list((run.parent / ".w.h5.tiles").glob("0*.npz")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return process


def test_first_showers_of_a_longer_request_are_those_of_a_shorter_one(
    finished_run: Path, whole: Path
) -> None:
    """S4, with another seed giving other showers."""
    longer = _sample(finished_run, "l.h5", "-n", "130", *REQUEST[2:])
    assert np.array_equal(_showers(whole)[0], _showers(longer)[0][:90])
    other = _sample(finished_run, "o.h5", "-n", "90", "--energy", "20:80GeV", "--seed", "1")
    assert not np.array_equal(_showers(whole)[0], _showers(other)[0])


def test_like_takes_the_conditions_of_a_file(finished_run: Path, tiny_data: Path) -> None:
    out = _sample(finished_run, "like.h5", "--like", str(tiny_data), "-n", "40")
    with open_paths([tiny_data], geometry=None) as source:
        expected = source.read(0, 40).conditions["incident_energy"]
    assert np.array_equal(_showers(out)[1], expected)


def test_without_energies_the_trained_domain_is_drawn(finished_run: Path) -> None:
    """What calo-train offers as the next command must work; it is logged and recorded."""
    done = commands.run(
        "calo-sample", str(finished_run), "-n", "5", "--out", "d.h5", cwd=finished_run.parent
    )
    assert done.returncode == 0, done.stderr
    assert "trained domain, incident_energy" in done.stderr
    assert "calo-eval" in done.stdout
    assert _showers(finished_run.parent / "d.h5")[1].min() > 10_000


def test_output_is_physical_and_says_where_it_comes_from(whole: Path) -> None:
    """S8: finite, not negative, nothing between zero and the threshold."""
    energies, _ = _showers(whole)
    assert np.isfinite(energies).all()
    threshold = np.float32(0.01)
    assert ((energies == 0) | (energies >= threshold * (1 - 1e-6))).all()
    with h5py.File(whole) as file:
        names = set(file.attrs)
    assert {"generator", "generator_fingerprint", "seed", "request", "dtype", "device"} <= names


def test_no_showers_are_a_valid_file_and_too_many_are_refused(finished_run: Path) -> None:
    """S10."""
    out = _sample(finished_run, "none.h5", "-n", "0", "--energy", "50GeV")
    with h5py.File(out) as file:
        assert file["energies"].shape == (0, 48)
    done = commands.run(
        "calo-sample", str(finished_run), "-n", "100000000000", "--energy", "50GeV",
        cwd=finished_run.parent,
    )  # fmt: skip
    commands.require_message(done, 5, "disk space", "needed")
    assert not list((finished_run / "samples").glob(".*"))


def test_existing_output_needs_force(finished_run: Path, whole: Path) -> None:
    """S10, U9."""
    arguments = (str(finished_run), *REQUEST, "--out", str(whole))
    done = commands.run("calo-sample", *arguments, cwd=whole.parent)
    commands.require_message(done, 2, "exists", "--force", whole.name)
    assert commands.run("calo-sample", *arguments, "--force", cwd=whole.parent).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-n", "5", "--energy", "50"), "unit"),
        (("-n", "5", "--energy", "50m"), "GeV"),
        (("-n", "5", "--energy", "900GeV"), "--extrapolate"),
        (("-n", "5", "--azimuth", "10deg"), "no condition 'azimuth'"),
        (("-n", "5", "--energy", "0GeV", "--extrapolate"), "above zero"),
        (("--energy", "50GeV"), "-n"),
        (("-n", "5", "--energy", "50GeV", "--shard", "2/2"), "shard"),
        (("-n", "5", "--energy", "50GeV", "--dtype", "float16"), "float64"),
    ],
)
def test_wrong_requests_are_refused(
    finished_run: Path, arguments: tuple[str, ...], words: str
) -> None:
    """S6, S7."""
    done = commands.run("calo-sample", str(finished_run), *arguments, cwd=finished_run.parent)
    commands.require_message(done, 2, words)


def test_extrapolation_marks_the_file(finished_run: Path) -> None:
    out = _sample(finished_run, "far.h5", "-n", "5", "--energy", "900GeV", "--extrapolate")
    with h5py.File(out) as file:
        assert "extrapolated" in file.attrs["notes"]
        assert file.attrs["is_extrapolated"]


def test_unfinished_run_names_its_missing_parts(tmp_path: Path, tiny_data: Path) -> None:
    arguments = commands.tiny_training(tiny_data, "only=energy")
    assert commands.run("calo-train", *arguments, cwd=tmp_path).returncode == 0
    run = "runs/native/l2lflows/default"
    done = commands.run("calo-sample", run, "-n", "5", "--energy", "50GeV", cwd=tmp_path)
    commands.require_message(done, 3, "not finished", "causal/0, causal/1, causal/2")
