"""calo-eval as installed: runs, generators, files, what it refuses and what it prints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import commands
import detectors
import numpy as np
import pytest

from calo_train.showers.layouts import create_showers

if TYPE_CHECKING:
    from calo_train.showers.showers import Showers

FAST = ("--classifier-runs", "0", "--threshold", "0.01MeV")


def write(path: Path, showers: Showers) -> Path:
    with create_showers(path, "native", showers.geometry, attributes={}) as writer:
        writer.append(showers)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A sample and an independent reference, in a folder with a space in its name."""
    folder = tmp_path / "two files"
    folder.mkdir()
    geometry = detectors.cartesian()
    sample = detectors.write_showers(folder / "sample=a, b.h5", geometry, 120, seed=1)
    return str(sample), str(detectors.write_showers(folder / "réf.h5", geometry, 120, seed=2))


def test_help_is_instant_and_imports_nothing_heavy(tmp_path):
    """U1"""
    started = time.monotonic()
    assert commands.run("calo-eval", "--help", cwd=tmp_path).returncode == 0
    assert time.monotonic() - started < 10  # a guard against torch; the target is below a second
    code = (
        "import sys, calo_train.cli.evaluate; "
        "print([m for m in ('torch', 'numpy', 'matplotlib', 'h5py', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "[]"


def test_a_run_is_sampled_at_its_held_out_conditions_once_and_judged(finished_run, tmp_path):
    command = (
        "calo-eval", str(finished_run), "--classifier-runs", "1", "--classifier", "high",
        "--metrics-only",
    )  # fmt: skip
    done = commands.run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (report,) = (finished_run / "reports").iterdir()
    assert str(report / "metrics.json") in done.stdout
    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["reference"]["num_showers"] == 30  # a tenth of 300
    assert metrics["samples"][0]["num_showers"] == 30
    assert metrics["samples"][0]["incident_energy"] == metrics["reference"]["incident_energy"]
    assert metrics["samples"][0]["classifier"]["runs"]
    assert metrics["settings"]["threshold"] == 0.01
    (drawn,) = (finished_run / "samples").glob("*.h5")
    written = drawn.stat().st_mtime_ns
    again = commands.run(*command, "--json", cwd=tmp_path)
    assert drawn.stat().st_mtime_ns == written
    repeated = json.loads(again.stdout)
    assert repeated | {"durations": None} == metrics | {"durations": None}


def test_a_generator_folder_needs_a_reference(finished_run, tmp_path):
    """E10: and the peak memory is stated, as of every evaluation."""
    other = detectors.write_showers(tmp_path / "other.h5", detectors.cartesian(), 60, seed=9)
    generator = str(finished_run / "generator")
    commands.require_message(
        commands.run("calo-eval", generator, cwd=tmp_path), 2, "no reference", "--reference"
    )
    done = commands.run(
        "calo-eval", generator, "--reference", str(other), "-n", "40", "--classifier-runs",
        "0", "--extrapolate", "--metrics-only", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "peak memory" in done.stderr
    (metrics,) = (tmp_path / "reports").glob("*/metrics.json")
    assert done.stdout.splitlines()[-1] == f"metrics: {metrics}"
    assert [path.name for path in metrics.parent.iterdir()] == ["metrics.json"]


def test_several_samples_share_a_report_with_one_set_of_verdicts(pair, tmp_path):
    """U6, U8, U9, U10, E2, E11: the reference itself is the second sample."""
    sample, reference = pair
    base = (
        "calo-eval", sample, "--self-check", "--reference", reference, *FAST, "--out", "my report",
        "--fail-if", "num_hits.separation>0.9",
    )  # fmt: skip
    done = commands.run(*base, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page, metrics_file = (
        tmp_path / "my report" / name for name in ("report.html", "metrics.json")
    )
    metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
    assert [entry["label"] for entry in metrics["samples"]] == ["sample=a, b", "réf, self-check"]
    assert any("self-check" in warning for warning in metrics["samples"][1]["warnings"])
    lines = done.stdout.splitlines()
    for entry in metrics["samples"][0]["observables"].values():
        line = next(line for line in lines if line.startswith(f"  {entry['title']} "))
        assert line.endswith(entry["verdict"])
    assert lines[-1].startswith("next: ")
    before = page.read_text(encoding="utf-8")
    refused = commands.run(*base, "--seed", "1", cwd=tmp_path)
    commands.require_message(refused, 2, "a report of other inputs", "--force")
    assert page.read_text(encoding="utf-8") == before
    old = shutil.copy(metrics_file, tmp_path / "old.json")
    forced = commands.run(
        *base, "--seed", "1", "--force", "--json", "--fail-if", "num_hits.separation>=0",
        "--metrics-only", cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(forced.stdout)["settings"]["seed"] == 1
    assert not page.exists()  # it showed the results of another seed
    assert not list((tmp_path / "my report" / "figures").iterdir())
    words = ("error: num_hits.separation>=0 holds", "sample=a, b", "metrics.json")
    commands.require_message(forced, 6, *words)
    others = commands.run("calo-eval", "--compare", old, "my report", cwd=tmp_path)
    commands.require_message(others, 3, "settings.seed: 0 and 1")
    same = ("calo-eval", "--compare", "my report", "my report/metrics.json", "--fail-if")
    compared = commands.run(*same, "num_hits.separation>0.9", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert "0 worse, 0 better" in compared.stdout
    unknown = commands.run(*same, "num_hit.separation>1", cwd=tmp_path)
    commands.require_message(unknown, 2, "nearest: num_hits.separation")


def test_other_incident_energies_are_refused(pair, tmp_path):
    """E6: exit 3, both described."""
    _, reference = pair
    showers = detectors.make_showers(detectors.cartesian(), 120, seed=1)
    showers.conditions["incident_energy"][:] = 20_000
    sample = write(tmp_path / "fixed.h5", showers)
    done = commands.run("calo-eval", str(sample), "--reference", reference, *FAST, cwd=tmp_path)
    commands.require_message(done, 3, "20 GeV to 20 GeV", "####", "--like")
    assert not list(tmp_path.glob("reports/*/*"))


def test_a_reference_that_was_trained_on_is_refused(finished_run, tiny_data, tmp_path):
    """D6: exit 3 with both files and the number of rows, for a run and for a generator folder."""
    run = ("calo-eval", str(finished_run), "--reference", str(tiny_data), "--extrapolate")
    done = commands.run(*run, cwd=tmp_path)
    commands.require_message(done, 3, "training data itself", str(tiny_data), "moved run")
    part = write(
        tmp_path / "part.h5", detectors.make_showers(detectors.cartesian(), 300).rows(slice(50))
    )
    done = commands.run(*run[:2], "--reference", str(part), "--extrapolate", cwd=tmp_path)
    commands.require_message(done, 3, "of 50 showers of the reference were trained on", "part.h5")
    generator = str(finished_run / "generator")
    done = commands.run("calo-eval", generator, "--reference", str(tiny_data), cwd=tmp_path)
    commands.require_message(done, 3, "training data itself", "generator")


def test_what_changes_how_a_result_is_read_is_in_log_headline_and_report(tmp_path):
    """E4, E6, E14: invalid and memorised showers, and other energies that are allowed."""
    geometry = detectors.cartesian()
    reference = detectors.write_showers(tmp_path / "reference.h5", geometry, 200, seed=2)
    showers = detectors.make_showers(geometry, 200, seed=1)
    showers.conditions["incident_energy"][:] = 20_000
    showers.energies[3, 0] = np.nan
    one = str(write(tmp_path / "one.h5", showers))
    done = commands.run(
        "calo-eval", one, "--reference", str(reference), *FAST, "--training", one,
        "--allow-different-energies", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 of 200 showers are invalid" in done.stdout.splitlines()[1]
    (page,) = tmp_path.glob("reports/*/report.html")
    shown = page.read_text(encoding="utf-8")
    for words in (
        "memorised: 200 of 200",
        "every number below is distorted",
        "1 showers with NaN",
    ):
        assert words in done.stderr
        assert words in shown
    showers = detectors.make_showers(geometry, 200, seed=1)
    showers.energies[3, 0] = np.nan
    showers.energies[:3, 0] = -1
    many = write(tmp_path / "many.h5", showers)
    done = commands.run("calo-eval", str(many), "--reference", str(reference), *FAST, cwd=tmp_path)
    commands.require_message(done, 3, "3 with negative", "many.h5")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (["missing.h5"], 3, ["missing.h5"]),
        (["{sample}", "--reference", "missing.h5"], 3, ["missing.h5"]),
        (["{sample}", "--reference", "{polar}"], 3, ["another detector", "layer 0"]),
        (["{sample}", "--reference", "{reference}", "--threshold", "5"], 2, ["such as 50GeV"]),
        (["{sample}", "--reference", "{reference}", "--dataset", "ild_foton"], 2, ["ild_photons"]),
        (["{sample}", "--reference", "{reference}", "--classifier", "lo"], 2, ["mean low"]),
        (["{sample}"], 2, ["--reference"]),
        (["{sample}", "--fail-if", "num_hits"], 2, ["not a condition"]),
        ([], 2, ["nothing to judge"]),
        (["{folder}", "--reference", "{reference}"], 3, ["no run and no generator"]),
        (["{sample}", "--reference", "{reference}", "--out", "{folder}"], 2, ["not a report"]),
        (["{few}", "--reference", "{reference}"], 3, ["too few"]),
    ],
)
def test_bad_input_ends_with_what_where_and_what_to_do(pair, tmp_path, change, code, words):
    sample, reference = pair
    folder = Path(sample).parent
    names = {
        "sample": sample,
        "reference": reference,
        "folder": str(folder),
        "polar": str(detectors.write_showers(tmp_path / "polar.h5", detectors.polar(), 120)),
        "few": str(detectors.write_showers(tmp_path / "few.h5", detectors.cartesian(), 5)),
    }
    arguments = [word.format(**names) for word in change]
    if "--threshold" not in arguments:
        arguments += ["--threshold", "0.01MeV"]
    done = commands.run("calo-eval", *arguments, "--classifier-runs", "0", cwd=tmp_path)
    commands.require_message(done, code, *words)


def test_an_unknown_threshold_is_asked_for(pair, tmp_path):
    sample, reference = pair
    done = commands.run("calo-eval", sample, "--reference", reference, cwd=tmp_path)
    commands.require_message(done, 2, "threshold is not known", "--threshold 0.1MeV")


def test_an_unfinished_run_says_which_parts_are_missing(finished_run, tmp_path):
    (finished_run / "generator" / "generator.yaml").unlink()
    next((finished_run / "stages").glob("*/parts/*.safetensors")).unlink()
    done = commands.run("calo-eval", str(finished_run), cwd=tmp_path)
    commands.require_message(done, 3, "not finished: 1 parts")
