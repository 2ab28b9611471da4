"""calo-data as people run it: real processes, files with spaces in their names, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from calo_train.atomic_files import sha256_of
from calo_train.showers.layouts import open_file
from calo_train.showers.paths import embedded_file

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = embedded_file("ild_sample.h5")
NUM_SHOWERS = 200
PLAIN = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1"}


def run(
    *words: object, code: int = 0, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run calo-data and assert its exit code; a traceback is never right."""
    done = subprocess.run(
        [sys.executable, "-m", "calo_train.cli.data", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=PLAIN,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def refused(*words: object, code: int = 3) -> str:
    """Run what must fail, and give its message after checking that it has the three parts."""
    text = run(*words, code=code).stderr
    error = text[text.index("error: ") :]
    assert [line.split(":")[0].strip() for line in error.splitlines()] == ["error", "where", "do"]
    return error


def copy(
    path: Path,
    *,
    energy: Any = None,
    layers: Any = None,
    group: str = "10x10",
    shape: tuple[int, ...] = (30, 10, 10),
    **storage: Any,
) -> Path:
    """Write the first showers of the sample, or given values, in the Getting High layout."""
    with h5py.File(SAMPLE) as sample, h5py.File(path, "w") as file:
        file.attrs.update(dict(sample.attrs))
        found = sample["10x10/layers"][:NUM_SHOWERS]
        file[f"{group}/energy"] = (
            sample["10x10/energy"][:NUM_SHOWERS] if energy is None else np.asarray(energy)
        )
        values = found if layers is None else np.asarray(layers)
        array = file.create_dataset(f"{group}/layers", data=values.reshape(-1, *shape), **storage)
        array.attrs.update(dict(sample["10x10/layers"].attrs))
    return path


@pytest.fixture
def photons(tmp_path: Path) -> Path:
    folder = tmp_path / "größe, 1 =2"
    folder.mkdir()
    return copy(folder / "my photons.h5")


def test_info_says_what_is_in_a_file(photons: Path) -> None:
    shown = run("info", photons).stdout
    for words in (
        "getting_high",
        "200",
        "30 layers of 10 x 10 cells",
        "GeV (stored in GeV)",
        "10 bits of mantissa",
        "ild_photons_core",
        "EGSnrc",
    ):
        assert words in shown


def test_info_as_json_holds_the_same_for_programs(photons: Path) -> None:
    done = run("info", photons, SAMPLE, "--json")
    first, second = json.loads(done.stdout)
    assert (first["layout"], first["num_showers"], first["mantissa_bits"]) == (
        "getting_high",
        NUM_SHOWERS,
        10,
    )
    condition = first["conditions"]["incident_energy"]
    assert condition["unit"] == "MeV"
    assert 1e4 <= condition["low"] < condition["high"] <= 1e5
    assert second["num_showers"] == 3100
    assert done.stderr == ""


def test_info_of_a_file_without_showers(tmp_path: Path) -> None:
    path = copy(tmp_path / "none.h5", energy=np.empty((0, 1)), layers=np.empty((0, 30, 10, 10)))
    assert "no values" in run("info", path).stdout
    assert "no showers" in refused("check", path, "--dataset", "ild_sample")


def test_check_passes_a_good_file(photons: Path) -> None:
    done = run("check", photons, "--dataset", "ild_photons_core")
    assert "good, 200 showers" in done.stdout
    assert "showers/s" in done.stdout
    found = json.loads(run("check", photons, "--json", "--geometry", "ild_30x10x10").stdout)[0]
    assert found["visible_fraction"] == pytest.approx(0.022, abs=0.001)
    assert "ild_sample" in found["datasets"]


def test_check_goes_through_all_files_and_fails_when_one_does(photons: Path) -> None:
    done = run("check", SAMPLE, photons, "no.h5", photons, "--dataset", "ild_sample", code=3)
    assert done.stdout.count("good, 200 showers") == 2
    assert done.stdout.count("good, 3100 showers") == 1
    assert "no.h5: refused: no such file" in done.stdout
    found = json.loads(run("check", "no.h5", "--json", code=3).stdout)
    assert found[0]["error"] == "no such file"


def test_truncated_file(photons: Path) -> None:
    """D1: bytes found and expected."""
    content = photons.read_bytes()
    photons.write_bytes(content[:-1000])
    text = refused("check", photons, "--dataset", "ild_sample")
    for words in ("truncated", str(len(content) - 1000), str(len(content)), str(photons), "again"):
        assert words in text


def test_wrong_units(tmp_path: Path) -> None:
    """D2: the ranges, the likely unit, and a command that, pasted, mends the file."""
    with h5py.File(SAMPLE) as sample:
        energy_mev = 1000 * sample["10x10/energy"][:NUM_SHOWERS]
    wrong = copy(tmp_path / "in mev.h5", energy=energy_mev)
    before = sha256_of(wrong)
    text = refused("check", wrong, "--dataset", "ild_sample")
    for words in ("look like MeV", "stores GeV", "10 GeV to 100 GeV", "nothing was changed"):
        assert words in text
    command = text[text.index("calo-data convert") : text.index("    (nothing")]
    shell = command.replace("calo-data", f"{sys.executable} -m calo_train.cli.data", 1)
    subprocess.run(shell, shell=True, check=True, env=PLAIN, capture_output=True)  # noqa: S602 - a shell pipe is what is tested
    assert sha256_of(wrong) == before
    mended = open_file(tmp_path / "in mev_converted.h5")
    np.testing.assert_allclose(
        mended.read_conditions(0, NUM_SHOWERS)["incident_energy"], energy_mev[:, 0], rtol=2.0**-22
    )
    run("check", mended.path, "--dataset", "ild_sample")


def test_wrong_geometry(tmp_path: Path) -> None:
    """D3: both described, the first difference, which data set fits."""
    values = np.ones((4, 30, 12, 12), np.float32)
    path = copy(
        tmp_path / "a.h5",
        energy=np.full((4, 1), 50),
        layers=values,
        group="12x12",
        shape=(30, 12, 12),
    )
    text = refused("check", path, "--dataset", "ild_sample")
    for words in (
        "30 layers of 10 x x 10 y",
        "30 layers of 12 x 12",
        "axis x: 10 cells against 12",
    ):
        assert words in text
    assert "no data set" in text
    text = refused("check", SAMPLE, "--dataset", "ild_photons")
    assert "axis x: 30 cells against 10" in text
    assert "dataset=ild_photons_core or ild_sample" in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_impossible_deposits(value: float, tmp_path: Path) -> None:
    """D4: count and first rows."""
    with h5py.File(SAMPLE) as sample:
        layers = sample["10x10/layers"][:NUM_SHOWERS]
    layers[[7, 99], 3, 4, 5] = value
    path = copy(tmp_path / "a.h5", layers=layers)
    text = refused("check", path, "--dataset", "ild_sample")
    assert "2 showers with" in text
    assert "10x10/layers, first in rows 7, 99" in text
    assert "invalid_showers=drop" in text


def test_showers_without_energy_are_counted(tmp_path: Path) -> None:
    """D5."""
    with h5py.File(SAMPLE) as sample:
        layers = sample["10x10/layers"][:NUM_SHOWERS]
    layers[10:13] = 0.0
    path = copy(tmp_path / "a.h5", layers=layers)
    assert "3 without energy" in run("check", path, "--dataset", "ild_sample").stdout


def test_foreign_file(tmp_path: Path) -> None:
    """D7: what is inside, the known layouts, the closest."""
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file["incident_energy"] = np.ones((5, 1))
        file["shower"] = np.ones((5, 24))
    text = refused("info", path)
    for words in ("incident_energy (5, 1)", "shower (5, 24)", "getting_high", "native"):
        assert words in text
    assert "closest is calochallenge" in text


def test_convert_writes_the_same_showers_in_another_layout(photons: Path, tmp_path: Path) -> None:
    """D10: rows in order, original untouched, provenance kept, a second run is done at once."""
    before, out = sha256_of(photons), tmp_path / "native photons.h5"
    words = ("convert", photons, "-o", out, "--to", "native", "--dataset", "ild_sample")
    done = run(*words)
    assert done.stdout.startswith(f"wrote: {out} (200 showers, layout native)")
    assert f"next: calo-data check '{out}'" in done.stdout
    source, written = open_file(photons), open_file(out)
    geometry = written.geometry
    assert geometry is not None
    expected, found = source.read(0, 200, geometry), written.read(0, 200, geometry)
    np.testing.assert_array_equal(found.energies, expected.energies)
    np.testing.assert_array_equal(
        found.conditions["incident_energy"], expected.conditions["incident_energy"]
    )
    assert written.mantissa_bits == 10
    assert "EGSnrc" in written.attributes["generator"]
    assert written.attributes["converted_from"] == photons.name
    assert sha256_of(photons) == before
    age = out.stat().st_mtime_ns
    assert run(*words).stdout.startswith(f"already done: {out}")
    assert out.stat().st_mtime_ns == age


def test_convert_replaces_nothing_silently(photons: Path, tmp_path: Path) -> None:
    """U9, D10: another result under the same name needs --force; the input is never one."""
    out = tmp_path / "out.h5"
    words = ("convert", photons, "-o", out, "--geometry", "ild_30x10x10")
    run(*words)
    assert "--force" in refused(*words, "--to", "native", code=2)
    assert open_file(out).layout == "getting_high"
    assert "replacing" in run(*words, "--to", "native", "--force").stderr
    assert open_file(out).layout == "native"
    refused("convert", photons, "-o", photons, "--dataset", "ild_sample", "--force", code=2)


def test_convert_that_fails_leaves_nothing_under_the_final_name(photons: Path) -> None:
    """D10: a damaged block is met halfway."""
    with h5py.File(photons, "r+") as file:
        values = file["10x10/layers"][:]
        del file["10x10/layers"]
        file.create_dataset("10x10/layers", data=values, chunks=(16, 30, 10, 10), compression=1)
        place = file["10x10/layers"].id.get_chunk_info(9)
    content = bytearray(photons.read_bytes())
    content[place.byte_offset + 8 : place.byte_offset + 40] = bytes(32)
    photons.write_bytes(content)
    out = photons.parent / "out.h5"
    text = refused("convert", photons, "-o", out, "--to", "native", "--dataset", "ild_sample")
    assert "damaged" in text
    assert sorted(photons.parent.iterdir()) == [photons]


def test_slow_file_is_offered_a_repack_that_mends_its_chunks(tmp_path: Path) -> None:
    """D12: chunks that cut every shower into pieces, strong gzip; the offer works when pasted."""
    slow = copy(
        tmp_path / "slow.h5",
        chunks=(NUM_SHOWERS, 1, 2, 2),
        compression="gzip",
        compression_opts=9,
        shuffle=True,
    )
    shown = run("check", slow, "--dataset", "ild_sample").stdout
    assert "cut showers into pieces" in shown
    assert "slow" in shown
    repacked = tmp_path / "slow_repacked.h5"
    run("convert", slow, "--dataset", "ild_sample", "-o", repacked)
    found = json.loads(run("check", repacked, "--dataset", "ild_sample", "--json").stdout)[0]
    assert "cut showers into pieces" not in found["storage"]
    assert "gzip 1, chunks of 64 rows" in found["storage"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", SAMPLE, "--dataset", "ild_smaple"), "nearest: ild_sample"),
        (("check", SAMPLE, "--geometry", "ild_30x30"), "ild_30x30x30"),
        (("check", SAMPLE, "--geometry", "a", "--dataset", "b"), "give one of the two"),
        (("convert", SAMPLE, "-o", "a.h5", "--to", "getting"), "nearest: getting_high"),
        (("convert", SAMPLE, "-o", "a.h5", "--energy-unit", "gev"), "GeV"),
    ],
)
def test_wrong_words_are_usage_errors_with_the_nearest_names(
    words: tuple[object, ...], message: str
) -> None:
    """U2."""
    assert message in refused(*words, code=2)


def test_missing_arguments_and_unknown_options_exit_with_2() -> None:
    assert "--out" in run("convert", "a.h5", code=2).stderr
    run("check", SAMPLE, "--datset", "ild_sample", code=2)


def test_reader_that_has_enough_is_no_error(photons: Path) -> None:
    """U6: as with `| head -1`."""
    command = f"{sys.executable} -m calo_train.cli.data info '{photons}' | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        env=PLAIN,
        check=True,
    )
    assert done.stdout.strip() == str(photons)
    assert done.stderr == ""


def test_quiet_prints_only_the_result(photons: Path, tmp_path: Path) -> None:
    """U5."""
    out = tmp_path / "out.h5"
    done = run("convert", photons, "-o", out, "--dataset", "ild_sample", "--quiet")
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_output_folder_that_is_missing_is_the_machine(photons: Path, tmp_path: Path) -> None:
    words = ("convert", photons, "-o", tmp_path / "none" / "a.h5", "--dataset", "ild_sample")
    assert str(tmp_path / "none") in refused(*words, code=5)
