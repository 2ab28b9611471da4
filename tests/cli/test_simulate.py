"""Simulated showers by command and as a data source; everything that comes of them says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import commands
import h5py
import pytest
import yaml

from calo_train.showers.simulator.origin import SIMULATION_NOTE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["calochallenge_ds1_pions", "calogan_pions", "calochallenge_ds3"])
def test_simulated_file_is_a_good_file_of_its_data_set(name: str, tmp_path: Path) -> None:
    made = commands.run(
        "calo-data", "simulate", "--dataset", name, "-n", "70", "-o", "s.h5", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    assert SIMULATION_NOTE in made.stderr
    with h5py.File(tmp_path / "s.h5") as file:
        assert SIMULATION_NOTE in str(file.attrs["notes"])
    checked = commands.run("calo-data", "check", "s.h5", "--dataset", name, cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr + checked.stdout
    again = commands.run(
        "calo-data", "simulate", "--dataset", name, "-n", "70", "-o", "s.h5", cwd=tmp_path
    )
    commands.require_message(again, 2, "--force")


def test_training_on_simulated_showers_says_so_to_the_end(tmp_path: Path) -> None:
    """Log, run.yaml, generator and samples carry the note."""
    words = [
        *commands.TINY_MODEL, "dataset=calochallenge_ds1_photons", "dataset.source=simulated",
        "dataset.n_showers=150",
    ]  # fmt: skip
    done = commands.run("calo-train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert SIMULATION_NOTE in done.stderr
    run = tmp_path / "runs/calochallenge_ds1_photons/l2lflows/default"
    for record in ("run.yaml", "generator/generator.yaml"):
        notes = yaml.safe_load((run / record).read_text(encoding="utf-8"))["notes"]
        assert any(SIMULATION_NOTE in note for note in notes)
    drawn = commands.run("calo-sample", str(run), "-n", "9", "--out", "d.h5", cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    with h5py.File(tmp_path / "d.h5") as file:
        assert SIMULATION_NOTE in str(file.attrs["notes"])
    more = commands.run("calo-train", *words[:-1], "dataset.n_showers=151", cwd=tmp_path)
    commands.require_message(more, 2, "n_showers")
