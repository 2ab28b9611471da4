"""What holds on a GPU: faults, resumed trainings, and showers that equal those of a CPU."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import commands
import forked
import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA")
RUN = "runs/native/l2lflows/default"


def limit_gpu_memory() -> None:
    """Leave this process 1 GiB of the GPU."""
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min((1 << 30) / total, 1.0))


def test_batch_that_does_not_fit(tmp_path: Path, tiny_data: Path) -> None:
    """R15: 4.4e8 weights and their moments in 1 GiB."""
    words = commands.tiny_training(
        tiny_data, "trainer=gpu", "model.causal_flow.hidden_features=4096",
        "model.causal_flow.num_blocks=8",
    )  # fmt: skip
    done = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log",
                      prepare=limit_gpu_memory)  # fmt: skip
    assert done.process.exitcode == 5, done.log
    for word in ("batch of 32", "peak", "free", "should fit"):
        assert word in done.log


@pytest.mark.parametrize("family", [commands.TINY_MODEL, commands.TINY_CALOFLOW])
def test_killed_training_ends_as_the_uninterrupted_one(
    family: list[str], tmp_path: Path, tiny_data: Path
) -> None:
    """R1 on one GPU with trainer.deterministic=true: weights are equal to the bit."""
    words = [
        *family, "dataset=native", f"dataset.path={tiny_data}", "dataset.threshold=0.01MeV",
        "trainer=gpu", "trainer.deterministic=true", "trainer.checkpoint_interval=0.05s",
        "trainer.max_epochs=40", "runs_folder=undisturbed",
    ]  # fmt: skip
    done = commands.run("calo-train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words[-1] = "runs_folder=killed"
    process = commands.start("calo-train", *words, cwd=tmp_path)
    deadline = time.monotonic() + commands.TIMEOUT
    while not list(tmp_path.glob("killed/**/last.ckpt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = commands.run("calo-train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "going on at epoch" in done.stderr
    expected, resumed = (_weights(tmp_path / name) for name in ("undisturbed", "killed"))
    assert len(expected) > 0
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-2)])
def test_showers_of_a_gpu_are_those_of_a_cpu(
    dtype: str, tolerance: float, tmp_path: Path, finished_run: Path
) -> None:
    """S5: the same base noise on both; voxels at the threshold may fall on either side."""
    energies = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.h5"
        done = commands.run(
            "calo-sample", str(finished_run), "-n", "200", "--energy", "20:90GeV",
            "--dtype", dtype, "--device", device, "--out", str(out), cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        with h5py.File(out) as file:
            energies[device] = file["energies"][:]
            assert device in str(dict(file.attrs))
    sums = {device: found.sum(axis=1) for device, found in energies.items()}
    np.testing.assert_allclose(sums["cuda"], sums["cpu"], rtol=tolerance)
    is_close = np.isclose(energies["cuda"], energies["cpu"], rtol=tolerance, atol=1e-4)
    assert is_close.mean() > 0.999


def test_report_with_classifiers(tmp_path: Path, finished_run: Path) -> None:
    """Classifiers train on the GPU; the generator is timed on both devices."""
    done = commands.run(
        "calo-eval", str(finished_run), "--classifier", "low", "--timing", "--out", "report",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = (tmp_path / "report/metrics.json").read_text(encoding="utf-8")
    assert '"cuda"' in metrics


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}/{name}": value
        for path in sorted(folder.glob("**/generator/*.safetensors"))
        for name, value in load_file(path).items()
    }
