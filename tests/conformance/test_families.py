"""Every family on every kind of detector: train, be stopped, go on, draw, be judged.

In one process, since the commands themselves are tested elsewhere.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import commands
import detectors
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from calo_train.errors import Stopped, UsageError
from calo_train.evaluation.comparison import evaluate
from calo_train.evaluation.metrics import metrics_of
from calo_train.evaluation.results import Settings
from calo_train.evaluation.shower_set import ShowerSet
from calo_train.families.generator import load_generator
from calo_train.quantities import Spectrum
from calo_train.references import bibtex
from calo_train.sampling.draw import draw_to_file
from calo_train.sampling.request import SampleRequest
from calo_train.showers.source import open_paths
from calo_train.training.compose import composed_run
from calo_train.training.run import train

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calo_train.geometry import Geometry
    from calo_train.showers.showers import FloatArray
    from calo_train.training.config import RunConfig

NUM_DRAWN = 50
FAMILIES = {
    "l2lflows": commands.TINY_MODEL,
    "caloflow": [*commands.TINY_CALOFLOW, "model.sampler=student"],
    "icaloflow": [*commands.TINY_ICALOFLOW, "model.sampler=student"],
    "supercalo": commands.TINY_SUPERCALO,
}
# Words that a family needs on a detector.
OWN_WORDS = {
    ("supercalo", "cartesian"): ["model.coarse={x: 2, z: 3}"],
    ("supercalo", "polar"): ["model.coarse={alpha: 2, z: 3}"],
    ("supercalo", "single_voxel"): ["model.coarse={z: 1}"],
    ("caloflow", "single_voxel"): ["model.sampler=teacher"],
    ("icaloflow", "single_voxel"): ["model.sampler=teacher"],
}
# Where a family cannot, a family that it names.
REFUSED = {
    ("icaloflow", "ragged"): "model=caloflow",
    ("supercalo", "ragged"): "model=l2lflows",
    ("supercalo", "single_voxel"): "model=l2lflows",
}
PAIRS = [(family, detector) for family in FAMILIES for detector in detectors.ALL]


@dataclass(frozen=True)
class Case:
    """A family on a detector, with its data."""

    family: str
    geometry: Geometry
    folder: Path
    words: list[str]

    def config(self, name: str, *more: str) -> RunConfig:
        """Give the configuration of a training."""
        data = self.folder / "showers.h5"
        if not data.exists():
            detectors.write_showers(data, self.geometry, 100)
        return composed_run(
            [
                *self.words, "dataset=native", f"dataset.path={data}", f"name={name}",
                f"runs_folder={self.folder / 'runs'}", *more,
            ]
        )  # fmt: skip

    def draw(self, run: Path, sampler: str | None = None) -> Path:
        """Draw showers at the energies of the data; give their file."""
        generator = load_generator(run / "generator")
        if sampler is not None:
            generator = generator.drawn_by(sampler)
        path = self.folder / f"drawn {sampler}.h5"
        laws = {"incident_energy": Spectrum(10_000.0, 100_000.0)}
        request = SampleRequest(NUM_DRAWN, laws, is_extrapolating=True)
        draw_to_file(generator, request, path, layout="native")
        return path

    def energies(self, path: Path) -> FloatArray:
        with open_paths([path], geometry=self.geometry) as source:
            return source.read(0, source.num_showers).energies


def _case(family: str, detector: str, folder: Path) -> Case:
    words = [*FAMILIES[family], *OWN_WORDS.get((family, detector), [])]
    return Case(family, detectors.ALL[detector](), folder, words)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("family", "detector"), [p for p in PAIRS if p not in REFUSED])
def test_family_goes_on_after_a_stop_draws_and_is_judged(
    family: str, detector: str, tmp_path: Path
) -> None:
    """Stopped after a batch, again and again at first, it ends with the bits of a whole run."""
    case = _case(family, detector, tmp_path)
    whole = case.config("whole")
    train(whole)
    with pytest.raises(Stopped):
        train(case.config("stopped", "trainer.max_time=0.001s"))
    for _ in range(2):
        with suppress(Stopped):
            train(case.config("stopped", "trainer.max_time=0.001s"))
    stopped = case.config("stopped")
    train(stopped)
    first, second = _weights(whole.folder), _weights(stopped.folder)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    drawn = case.draw(whole.folder)
    energies = case.energies(drawn)
    assert energies.shape == (NUM_DRAWN, case.geometry.num_voxels)
    assert np.isfinite(energies).all()
    assert energies.sum() > 0
    _require_judged(case, drawn)


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}/{name}": value
        for path in sorted((run / "generator").glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def _require_judged(case: Case, drawn: Path) -> None:
    """Every observable that the detector has is judged, with a number and a floor."""
    reference = detectors.write_showers(case.folder / "other.h5", case.geometry, NUM_DRAWN, seed=8)
    with (
        open_paths([drawn], geometry=case.geometry) as sample,
        open_paths([reference], geometry=case.geometry) as other,
    ):
        settings = Settings(0.0, repetitions=3, classifiers=(), allow_different_energies=True)
        evaluation = evaluate([ShowerSet("drawn", sample)], ShowerSet("other", other), settings)
        (judged,) = metrics_of(evaluation)["samples"]
    separations = [entry["separation"] for entry in judged["observables"].values()]
    assert len(separations) > 5
    assert any(value is not None and math.isfinite(value) for value in separations)


@pytest.mark.parametrize(("family", "detector"), REFUSED)
def test_family_that_cannot_names_one_that_can(family: str, detector: str, tmp_path: Path) -> None:
    case = _case(family, detector, tmp_path)
    with pytest.raises(UsageError, match=REFUSED[family, detector]):
        train(case.config("refused"))


@pytest.mark.parametrize("family", ["caloflow", "icaloflow"])
def test_teacher_and_student_draw_from_one_generator(family: str, tmp_path: Path) -> None:
    """The family's sampler is what it was trained for; both can be asked for."""
    case = _case(family, "polar", tmp_path)
    config = case.config("both")
    train(config)
    default, student, teacher = (
        case.energies(case.draw(config.folder, sampler))
        for sampler in (None, "student", "teacher")
    )
    assert np.array_equal(default, student)
    assert not np.array_equal(default, teacher)


@pytest.mark.parametrize("family", FAMILIES)
def test_papers_of_a_family_can_be_cited(family: str, tmp_path: Path) -> None:
    papers = _case(family, "polar", tmp_path).config("cited").family.papers
    assert bibtex(papers).count("@") == len(papers) > 0
