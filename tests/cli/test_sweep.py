"""Sweeps as installed: what is done again and what not, folders, jobs of a cluster, the table."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from typing import TYPE_CHECKING

import commands
import pytest

from calo_train.cli.slurm import resources
from calo_train.cli.sweep_evaluation import judged_sweep, table_text
from calo_train.cli.sweep_points import sweep_name, sweep_points
from calo_train.errors import UsageError
from calo_train.evaluation.sweep_table import sweep_table
from calo_train.training.compose import composed_run
from calo_train.training.ledger import Point, SweepFolder
from calo_train.training.run_folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

MODELS = "runs/native/l2lflows"


def _status(sweep: str, cwd: Path) -> dict[str, dict[str, str]]:
    done = commands.run("calo-runs", "status", f"runs/sweeps/{sweep}", "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return {row["point"]: row for row in json.loads(done.stdout)}


def test_sweep_resumes_only_what_failed_or_is_missing(tmp_path: Path, tiny_data: Path) -> None:
    """R23: the others go on, the table names exit and message, the exit is the worst one."""
    rates = "model.energy_training.learning_rate=1e30,0.001"
    arguments = commands.tiny_training(tiny_data, "only=energy", "name=rates", rates)
    done = commands.run("calo-train", "-m", *arguments, cwd=tmp_path)
    commands.require_message(done, 4, "1 of 2", "learning_rate=1e+30: exit 4")
    bad, good = (f"model.energy_training.learning_rate={rate}" for rate in ("1e+30", "0.001"))
    rows = _status("rates", tmp_path)
    assert rows[bad]["state"] == "failed"
    assert rows[bad]["message"].startswith("exit 4: ")
    assert rows[good]["state"] == "done"
    kept = tmp_path / MODELS / f"rates-{good}" / "run.yaml"
    before = kept.stat().st_mtime_ns
    again = commands.run("calo-train", "-m", *arguments, cwd=tmp_path)
    assert again.returncode == 4
    assert kept.stat().st_mtime_ns == before


def test_stopped_sweep_starts_no_further_point_and_goes_on(
    tmp_path: Path, tiny_data: Path
) -> None:
    """R3: the signal reaches the training once, which saves; the same command does the rest."""
    long = ("model.causal_training.num_epochs=20", "trainer.checkpoint_interval=0.05s")
    arguments = ["-m", *commands.tiny_training(tiny_data, "seed=0,1", *long)]
    process = commands.start("calo-train", *arguments, cwd=tmp_path)
    deadline = time.monotonic() + commands.TIMEOUT
    first = tmp_path / MODELS / "default-seed=0"
    while not list(first.glob("stages/causal/*/last.ckpt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    _, log = process.communicate(timeout=commands.TIMEOUT)
    assert process.returncode == 75, log
    assert not (tmp_path / MODELS / "default-seed=1").exists()
    rows = _status("default", tmp_path)
    assert {name: row["state"] for name, row in rows.items()} == {
        "seed=0": "stopped",
        "seed=1": "missing",
    }
    done = commands.run("calo-train", *arguments, "launcher.at_once=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 done" in done.stdout
    output = "".join(p.read_text("utf-8") for p in tmp_path.glob("runs/sweeps/default/jobs/*"))
    assert "going on at epoch" in output


def _finished_sweep(runs: Path) -> SweepFolder:
    """A ledger of three points, the last of which has not finished."""
    ledger = SweepFolder.of(runs, "seeds")
    for seed in range(3):
        folder = runs / "native" / "l2lflows" / f"seeds-seed={seed}"
        ledger.add(Point(str(seed), (f"seed={seed}",), folder, {"only": None}))
        run = RunFolder(folder)
        run.create({})
        run.write_record({"state": "finished" if seed < 2 else "stopped"})
    return ledger


def _sample(separation: float) -> dict[str, object]:
    observable = {"separation": separation, "separation_floor": 0.01}
    return {"classifiers": {}, "observables": {"energy": observable}, "verdict": "at the floor"}


def test_evaluation_of_a_sweep_names_the_best_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What has finished is judged together, best first; what has not is named."""
    ledger = _finished_sweep(tmp_path)
    sweep = judged_sweep([ledger.path])
    assert sweep is not None
    assert [path.name for path in sweep.targets] == ["seeds-seed=0", "seeds-seed=1"]
    assert "1 of 3 trainings are not judged: seed=2 (missing)" in caplog.text
    found = sweep.write_table({"samples": [_sample(0.3), _sample(0.2)]}, tmp_path)
    assert "best by mean separation: l2lflows/seeds-seed=1" in table_text(found, tmp_path)
    with (tmp_path / "sweep.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["mean separation"]) for row in rows] == [("1", "0.2"), ("0", "0.3")]
    assert "l2lflows/seeds-seed=1" in (tmp_path / "sweep.html").read_text(encoding="utf-8")


def test_classifier_decides_where_there_is_one() -> None:
    """The lower AUC is the better generator, whatever the separations say."""
    samples = [_sample(0.1), _sample(0.2)]
    for sample, auc in zip(samples, (0.8, 0.6), strict=True):
        sample["classifiers"] = {"high": {"auc": auc, "auc_floor": 0.5}}
    found = sweep_table({"samples": samples}, [("a", ["seed=0"]), ("b", ["seed=1"])])
    assert (found.judge, found.best["run"]) == ("AUC high", "b")


def test_what_is_no_sweep_is_left_to_the_evaluation(tmp_path: Path) -> None:
    assert judged_sweep([tmp_path]) is None
    ledger = _finished_sweep(tmp_path)
    with pytest.raises(UsageError, match="by itself"):
        judged_sweep([ledger.path, tmp_path])


def test_swept_values_enter_the_names_of_runs() -> None:
    points = sweep_points(["seed=0,1", "model.tile=16,32", "name=wide"], None)
    names = [config.name for _, config in points]
    assert names[0] == "wide-seed=0-model.tile=16"
    assert len({config.folder for _, config in points}) == 4
    assert sweep_name(["name=wide", "seed=0,1"]) == "wide"


def test_long_names_are_cut_and_stay_apart() -> None:
    words = [f"model.causal_training.learning_rate=1e-{n}" for n in (3, 4)]
    both = [f"{words[0]},1e-4", "model.energy_training.final_learning_rate=1e-7,1e-8",
            "model.causal_training.final_learning_rate=1e-7,1e-8"]  # fmt: skip
    names = [config.name for _, config in sweep_points(both, None)]
    assert len(set(names)) == 8
    assert max(map(len, names)) <= 120


def test_equal_points_are_one() -> None:
    assert len(sweep_points(["seed=0,0,1"], None)) == 2


def test_points_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    """Two files of a group that lead to the same data set and family, and differ inside."""
    (tmp_path / "model").mkdir()
    for name, tile in (("small", 16), ("large", 32)):
        (tmp_path / "model" / f"{name}.yaml").write_text(
            f"# L2LFlows, {name} tiles\ndefaults:\n  - l2lflows\n  - _self_\ntile: {tile}\n",
            encoding="utf-8",
        )
    with pytest.raises(UsageError, match="model=small and model=large"):
        sweep_points(["model=small,large"], tmp_path)


@pytest.mark.parametrize(
    "word", ["launcher=local,slurm", "runs_folder='a','b'", "restart=true,false"]
)
def test_what_holds_for_all_points_cannot_be_swept(word: str) -> None:
    with pytest.raises(UsageError):
        sweep_points([word], None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trainer=cpu"], {"tasks_per_node": 1, "nodes": 1}),
        (["trainer=cpu", "trainer.num_devices=3"], {"tasks_per_node": 3}),
        (["trainer=gpu"], {"tasks_per_node": 1, "gpus_per_node": 1}),
        (
            ["trainer=ddp", "launcher.gpus=4", "trainer.num_nodes=2"],
            {"tasks_per_node": 4, "gpus_per_node": 4, "nodes": 2},
        ),
        (
            ["trainer=gpu", "trainer.num_devices=4", "trainer.parallel=parts"],
            {"tasks_per_node": 1, "gpus_per_node": 4},
        ),
        (
            ["launcher.time=90min", "launcher.memory=2GiB", "launcher.partition=gpu"],
            {"timeout_min": 90, "slurm_mem": "2048MB", "slurm_partition": "gpu"},
        ),
    ],
)
def test_job_asks_for_what_its_trainer_uses(words: list[str], expected: dict[str, object]) -> None:
    """Lightning refuses a job whose tasks are not its devices."""
    asked = resources(composed_run(["launcher=slurm", *words]))
    assert {name: asked[name] for name in expected} == expected


def test_number_of_gpus_is_not_guessed() -> None:
    with pytest.raises(UsageError, match="does not say how many"):
        resources(composed_run(["launcher=slurm", "trainer=ddp"]))


def test_cluster_is_named_where_there_is_none(tmp_path: Path, tiny_data: Path) -> None:
    """A PATH without sbatch; nothing is written."""
    arguments = commands.tiny_training(tiny_data, "launcher=slurm")
    environment = {**commands.environment(), "PATH": str(tmp_path)}
    done = commands.run_with(environment, "calo-train", *arguments, cwd=tmp_path)
    assert done.returncode in (2, 5)  # without the package submitit, or without sbatch
    assert "where: launcher.kind" in done.stderr
    assert not list(tmp_path.iterdir())
