"""The studies, end to end on a tiny detector, and what they make of known numbers."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import commands
import detectors
import h5py
import numpy as np
import pytest

from calo_train.errors import DataError, UsageError
from calo_train.families.settings import build_settings
from calo_train.quantities import Spectrum
from calo_train.showers.dataset import DatasetConfig
from calo_train.training.compose import compose_config

SCRIPTS = Path(__file__).parents[2] / "scripts"
BAND = Spectrum(40_000, 60_000)


@pytest.fixture(scope="module")
def interpolation():
    return runpy.run_path(str(SCRIPTS / "interpolation_study.py"))


@pytest.fixture(scope="module")
def amplification():
    return runpy.run_path(str(SCRIPTS / "amplification_study.py"))


def energies_of(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["conditions/incident_energy"][:]


def test_training_files_leave_the_band_out_and_have_equal_sizes(
    interpolation, tmp_path, tiny_data
):
    config = DatasetConfig("native", str(tiny_data))
    number = interpolation["write_training_files"](config, BAND, tmp_path, 0)
    outside, control = (energies_of(tmp_path / f"{name}.h5") for name in interpolation["RUNS"])
    assert len(outside) == len(control) == number
    assert not ((outside >= BAND.low) & (outside <= BAND.high)).any()
    assert ((control >= BAND.low) & (control <= BAND.high)).any()
    reference = interpolation["write_reference"](config, BAND, [str(tiny_data)], tmp_path / "r.h5")
    inside = energies_of(reference)
    assert inside.min() >= BAND.low
    assert inside.max() <= BAND.high
    assert len(inside) + number == 300


def test_a_band_outside_the_data_is_refused(interpolation, tmp_path, tiny_data):
    config = DatasetConfig("native", str(tiny_data))
    with pytest.raises(UsageError, match="300 of 300 showers"):
        interpolation["write_training_files"](config, Spectrum(2e5, 3e5), tmp_path, 0)
    with pytest.raises(DataError, match="0 reference showers"):
        interpolation["write_reference"](
            config, Spectrum(2e5, 3e5), [str(tiny_data)], tmp_path / "r.h5"
        )


def test_the_interpolating_run_is_counted_from_its_control(interpolation):
    def entry(value: float) -> dict:
        return {"title": "hits", "separation": value, "separation_error": 0.03,
                "separation_floor": 0.01, "separation_floor_error": 0.04}  # fmt: skip

    samples = [{"observables": {"hits": entry(value)}, "classifiers": {}} for value in (0.3, 0.1)]
    found = interpolation["summarise"]({"samples": samples})["observables"]["hits"]
    assert (found["interpolating"], found["control"], found["floor"]) == (0.3, 0.1, 0.01)
    assert found["significance"] == pytest.approx(0.2 / np.hypot(0.04, 0.04))


def test_runs_are_trained_by_the_words_on_the_written_files(interpolation, tmp_path, tiny_data):
    words = [*commands.tiny_training(tiny_data), "dataset.symmetries=[flip_x]"]
    config = build_settings(DatasetConfig, compose_config(words)["dataset"], where="dataset")
    out = tmp_path / "a study"
    made = compose_config(interpolation["training_words"](words, config, out, "control"))
    assert made["name"] == "control"
    assert made["runs_folder"] == str(out / "runs")
    assert made["dataset"]["path"] == str(out / "control.h5")
    assert made["dataset"]["threshold"] == "0.01MeV"
    assert made["dataset"]["symmetries"] == ["flip_x"]
    assert made["model"] == compose_config(words)["model"]


def test_interpolation_study_runs_to_its_files(
    interpolation, tmp_path, tiny_data, finished_run, monkeypatch
):
    """With two copies of a finished run in place of its trainings."""

    def trained(words: list[str], config: DatasetConfig, out: Path, name: str) -> Path:
        return Path(shutil.copytree(finished_run, out / "runs" / "native" / "l2lflows" / name))

    study, out = interpolation["study"], tmp_path / "a study"
    monkeypatch.setitem(study.__globals__, "_train", trained)
    reference = detectors.write_showers(tmp_path / "ref.h5", detectors.cartesian(), 200, seed=5)
    found = study(commands.tiny_training(tiny_data), BAND, [str(reference)], out, [], 0)
    assert {f"interpolation.{suffix}" for suffix in ("json", "png", "pdf")} <= {
        path.name for path in out.iterdir()
    }
    assert json.loads((out / "interpolation.json").read_text(encoding="utf-8")) == found
    hits = found["observables"]["num_hits"]
    assert hits["interpolating"] == hits["control"]  # the same generator at the same energies
    assert hits["significance"] == 0


def test_amplification_study_runs_to_its_files(
    amplification, finished_run, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "a study"
    arguments = [
        str(finished_run), "-o", str(out), "-n", "64", "--quantiles", "4",
        "--observables", "num_hits", "visible_energy,num_hits",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["amplification_study.py", *arguments])
    assert amplification["main"]() == 0
    printed = capsys.readouterr().out
    assert "times the 270 trained on" in printed
    assert "20 times are wanted" in printed
    results = json.loads((out / "amplification.json").read_text(encoding="utf-8"))["results"]
    assert set(results) == {"num_hits", "visible_energy and num_hits"}
    for found in results.values():
        assert found["num_cells"] == 4
        assert found["generated"][-1]["num_showers"] == 64
        assert found["amplification"]["value"] > 0
    assert (out / "amplification.png").stat().st_size > 0


def test_an_unknown_observable_names_the_nearest(amplification):
    with pytest.raises(UsageError, match="num_hit") as caught:
        amplification["_require_known"](("num_hit",), ["num_hits", "visible_energy"])
    assert "num_hits" in caught.value.do
