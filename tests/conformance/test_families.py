"""Every family on every kind of detector: train, resume, sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import commands
import detectors
import numpy as np
import pytest

from calo_train.showers.source import open_paths

if TYPE_CHECKING:
    from pathlib import Path

FAMILIES = {
    "l2lflows": commands.TINY_MODEL,
    "caloflow": commands.TINY_CALOFLOW,
    "icaloflow": commands.TINY_ICALOFLOW,
    "supercalo": commands.TINY_SUPERCALO,
}
# Words that a family needs on a detector.
OWN_WORDS = {
    ("supercalo", "cartesian"): ["model.coarse={x: 2, z: 3}"],
    ("supercalo", "polar"): ["model.coarse={alpha: 2, z: 3}"],
}
# Where a family cannot, a family that it names.
REFUSED = {
    ("icaloflow", "ragged"): "model=caloflow",
    ("supercalo", "ragged"): "model=l2lflows",
    ("supercalo", "single_voxel"): "model=l2lflows",
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("detector", detectors.ALL)
def test_family_trains_resumes_and_samples(family: str, detector: str, tmp_path: Path) -> None:
    geometry = detectors.ALL[detector]()
    data = detectors.write_showers(tmp_path / "showers.h5", geometry, 80)
    own = OWN_WORDS.get((family, detector), [])
    arguments = [*FAMILIES[family], *own, "dataset=native", f"dataset.path={data}"]
    first = commands.run("calo-train", *arguments, "only=energy", cwd=tmp_path)
    if (family, detector) in REFUSED:
        commands.require_message(first, 2, REFUSED[family, detector])
        return
    assert first.returncode == 0, first.stderr
    done = commands.run("calo-train", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = f"runs/native/{family}/default"
    done = commands.run(
        "calo-sample", run, "-n", "20", "--energy", "50GeV", "--out", "s.h5", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with open_paths([tmp_path / "s.h5"], geometry=geometry) as source:
        energies = source.read(0, 20).energies
    assert energies.shape == (20, geometry.num_voxels)
    assert np.isfinite(energies).all()
    assert energies.sum() > 0


def test_icaloflow_draws_by_teacher_and_student(tmp_path: Path) -> None:
    """Students train after their teachers, which stay in the generator."""
    data = detectors.write_showers(tmp_path / "showers.h5", detectors.polar(), 80)
    arguments = [*FAMILIES["icaloflow"], "dataset=native", f"dataset.path={data}"]
    done = commands.run("calo-train", *arguments, "model.sampler=student", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run, drawn = "runs/native/icaloflow/default", []
    for chosen in ([], ["--sampler", "student"], ["--sampler", "teacher"]):
        name = f"{len(drawn)}.h5"
        request = [run, "-n", "20", "--energy", "50GeV", *chosen, "--out", name]
        done = commands.run("calo-sample", *request, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with open_paths([tmp_path / name], geometry=detectors.polar()) as source:
            drawn.append(source.read(0, 20).energies)
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
