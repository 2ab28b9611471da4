"""The study of distinct coarse showers, end to end on a tiny detector."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import detectors
import pytest
import torch

from calo_train.errors import UsageError
from calo_train.families.flow_settings import FlowSettings
from calo_train.families.generator import Generator, save_generator
from calo_train.families.supercalo import SuperCalo
from calo_train.showers.source import open_paths
from calo_train.showers.statistics import gather_statistics

SCRIPT = Path(__file__).parents[2] / "scripts" / "variation_study.py"
TARGET = "calo_train.families.supercalo.SuperCalo"


@pytest.fixture(scope="module")
def variation():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def generator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained generator on the small polar detector."""
    folder = tmp_path_factory.mktemp("an untrained generator")
    geometry = detectors.polar()
    flow = FlowSettings(num_blocks=1, hidden_features=8)
    family = SuperCalo(
        coarse={"alpha": 2, "z": 3}, coarse_showers="given", energy_flow=flow,
        upsampling_flow=flow, tile=16,
    )  # fmt: skip
    blocks = [detectors.make_showers(geometry, 80)]
    statistics = gather_statistics(blocks, geometry, family.voxel_groups(geometry))
    torch.manual_seed(0)
    parts = {
        f"{stage.name}/0": stage.build_part(0).state_dict()
        for stage in family.stages(geometry, statistics, 0.1)
    }
    conditions = ("incident_energy",)
    save_generator(
        folder,
        Generator(
            family, TARGET, geometry, statistics, 0.1, "tiny", "", "native", conditions, parts
        ),
    )
    return folder


def test_variation_study_judges_every_number(variation, generator_folder, tmp_path):
    """The number of all rows comes last; each sample is as large as the reference."""
    geometry = detectors.polar()
    coarse = detectors.write_showers(tmp_path / "coarse.h5", geometry, 60, seed=3)
    reference = detectors.write_showers(tmp_path / "ref.h5", geometry, 120, seed=5)
    out = tmp_path / "a study"
    found = variation["study"](
        generator_folder, coarse, [str(reference)], out,
        numbers=[5], classifiers=["none"], seed=0,
    )  # fmt: skip
    assert [row["coarse_showers"] for row in found["rows"]] == [5, 60]
    assert json.loads((out / "variation.json").read_text(encoding="utf-8")) == found
    assert (out / "variation.png").stat().st_size > 0
    with open_paths([out / "from_5.h5"], geometry=geometry) as source:
        incident = source.read(0, source.num_showers).conditions["incident_energy"]
    assert len(incident) == 120
    assert len(set(incident.tolist())) == 5
    table = variation["as_table"](found)
    assert "| 5 |" in table
    assert "| floor |" in table


def test_more_coarse_showers_than_there_are_is_refused(variation):
    with pytest.raises(UsageError, match="holds 60"):
        variation["_numbers"]([5, 61], 60)
