"""calo-sample --coarse as installed: the same bits however it is cut, and only what is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import commands
import detectors
import h5py
import numpy as np
import pytest

from calo_train.families.supercalo import SuperCalo
from calo_train.showers.layouts import create_showers
from calo_train.showers.showers import Showers
from calo_train.showers.source import open_paths

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("model.coarse={x: 2, z: 3}", "model.coarse_showers=given")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator without Flow-2 as `run`, and ten coarse showers, the first empty."""
    folder = tmp_path_factory.mktemp("coarse showers")
    geometry = detectors.cartesian()
    data = detectors.write_showers(folder / "showers.h5", geometry, 80)
    arguments = [*commands.TINY_SUPERCALO, *WORDS, "dataset=native", f"dataset.path={data}"]
    done = commands.run("calo-train", *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "runs/native/supercalo/default").rename(folder / "run")
    fine = detectors.make_showers(geometry, 10, seed=1)
    fine.energies[0] = 0
    coarse, regrouping = SuperCalo(coarse={"x": 2, "z": 3}).coarse_geometry(geometry)
    with create_showers(folder / "coarse.h5", "native", coarse, attributes={}) as writer:
        writer.append(Showers(regrouping.apply(fine.energies), fine.conditions, coarse))
    return folder


def _sample(folder: Path, out: str, *arguments: str) -> np.ndarray:  # type: ignore[type-arg]
    done = commands.run("calo-sample", "run", *arguments, "--out", out, cwd=folder)
    assert done.returncode == 0, done.stderr
    with open_paths([folder / out], geometry=detectors.cartesian()) as source:
        return source.read(0, source.num_showers).energies


def test_refined_shards_merge_to_the_whole(folder: Path) -> None:
    """Row k of the coarse file is shower k, whatever the shard; the empty one stays empty."""
    request = ("--coarse", "coarse.h5", "-n", "25")
    whole = _sample(folder, "whole.h5", *request)
    halves = [
        _sample(folder, f"{index}.h5", *request, "--shard", f"{index}/2") for index in (0, 1)
    ]
    assert np.array_equal(whole, np.concatenate(halves))
    assert not whole[[0, 10, 20]].any()
    assert (whole[[1, 11, 21]].sum(axis=1) > 0).all()
    assert not np.array_equal(whole[1], whole[11])
    with h5py.File(folder / "whole.h5") as file:
        assert "25 showers refine 10" in file.attrs["notes"]


def test_what_coarse_showers_give_is_not_given_twice(folder: Path) -> None:
    for more in (("--like", "coarse.h5"), ("--energy", "50GeV")):
        done = commands.run("calo-sample", "run", "--coarse", "coarse.h5", *more, cwd=folder)
        commands.require_message(done, 2, "both give")


def test_generator_without_coarse_flow_asks_for_coarse_showers(folder: Path) -> None:
    done = commands.run("calo-sample", "run", "-n", "5", cwd=folder)
    commands.require_message(done, 2, "--coarse FILE")
