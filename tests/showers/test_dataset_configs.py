"""Every data set of conf/dataset is a valid config, and says of the embedded sample what it is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import yaml

from calo_train.config_folder import conf_folder
from calo_train.families.settings import build_settings
from calo_train.geometry import geometry_from_mapping
from calo_train.showers.checks import CheckedPass
from calo_train.showers.dataset import DatasetConfig, open_dataset
from calo_train.showers.fitting import fitting_datasets
from calo_train.showers.layouts import open_file
from calo_train.showers.paths import embedded_file
from calo_train.showers.statistics import gather_statistics
from calo_train.showers.symmetries import symmetry_images
from calo_train.training.compose import compose_config

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted((conf_folder() / "dataset").glob("*.yaml"))


def composed(name: str, *overrides: str) -> DatasetConfig:
    config = compose_config([f"dataset={name}", *overrides])
    return build_settings(DatasetConfig, config["dataset"], where="dataset")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_data_set_builds(path: Path) -> None:
    config = composed(path.stem, "dataset.path=some.h5")
    assert config.name == path.stem
    assert config.path == "some.h5"
    if config.detector is not None:
        symmetry_images(config.detector, config.symmetries)
    if config.core is not None:
        cropped, _ = config.core.parent.crop(**config.core.ranges)
        assert cropped == config.detector


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_key_has_a_value_and_a_source(path: Path) -> None:
    """The first line is what --help lists; every value says where it comes from."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    named = {"defaults", "name", "description"}
    written = {line.partition(":")[0]: line for line in lines if line[:1].isalpha()}
    for key in set(mapping) - named:
        above = lines[lines.index(written[key]) - 1]
        assert "#" in written[key] or above.startswith("#"), key


def test_geometries_are_those_of_the_papers() -> None:
    """Shapes of 2005.05334, 2302.11594 and 2410.21611; 45 x 3.4 mm are the 153 mm of Par04."""
    shapes = {"ild_30x30x30": 27000, "ild_30x10x10": 3000, "calochallenge_ds2": 6480}
    for name, num_voxels in shapes.items():
        mapping = yaml.safe_load((conf_folder() / "geometry" / f"{name}.yaml").read_text())
        assert geometry_from_mapping(mapping).num_voxels == num_voxels
    last = geometry_from_mapping(mapping).layers[-1]
    assert last.depth + last.thickness == pytest.approx(153.0)


def test_embedded_sample_is_what_its_config_says(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "calo_train"):
        config = composed("ild_sample")
        source = open_dataset(config)
    checked = CheckedPass(source, config)
    statistics = gather_statistics((s for _, s in checked.blocks()), source.geometry)
    assert source.num_showers == 3100
    assert statistics.visible_fraction == pytest.approx(config.visible_fraction, rel=0.01)
    assert "EGSnrc" in source.description
    assert "photon" in source.description
    assert "not the published Geant4 set" in config.description
    low, high = statistics.condition_range["incident_energy"]
    assert 1e4 <= low < high <= 1e5
    assert set(source.mantissa_bits) == {10}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_file_knows_which_data_sets_it_fits() -> None:
    fits = fitting_datasets(open_file(embedded_file("ild_sample.h5")))
    assert {"ild_sample", "ild_photons_core"} <= set(fits)
    assert not {"ild_photons", "calochallenge_ds2", "native"} & set(fits)
