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

FAMILIES = {"l2lflows": commands.TINY_MODEL, "supercalo": commands.TINY_SUPERCALO}
# Words that a family needs on a detector; None where it says that another family must be taken.
OWN_WORDS: dict[tuple[str, str], list[str] | None] = {
    ("supercalo", "cartesian"): ["model.coarse=[2x,3z]"],
    ("supercalo", "polar"): ["model.coarse=[2alpha,3z]"],
    ("supercalo", "ragged"): None,
    ("supercalo", "single_voxel"): None,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("detector", detectors.ALL)
def test_family_trains_resumes_and_samples(family: str, detector: str, tmp_path: Path) -> None:
    geometry = detectors.ALL[detector]()
    data = detectors.write_showers(tmp_path / "showers.h5", geometry, 80)
    own = OWN_WORDS.get((family, detector), [])
    arguments = [*FAMILIES[family], *(own or []), "dataset=native", f"dataset.path={data}"]
    if own is None:
        done = commands.run("calo-train", *arguments, cwd=tmp_path)
        commands.require_message(done, 2, "model=l2lflows")
        return
    first = commands.run("calo-train", *arguments, "only=energy", cwd=tmp_path)
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
