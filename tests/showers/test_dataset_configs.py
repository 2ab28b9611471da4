"""Every data set of conf/dataset is a valid config, and says of the embedded sample what it is."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import yaml

from calo_train.config_folder import conf_folder
from calo_train.errors import GeometryMismatch
from calo_train.families.settings import build_settings
from calo_train.geometry import geometry_from_mapping, geometry_from_xml
from calo_train.showers.checks import CheckedPass
from calo_train.showers.dataset import DatasetConfig, open_dataset
from calo_train.showers.fitting import fitting_datasets
from calo_train.showers.layouts import open_file
from calo_train.showers.paths import embedded_file
from calo_train.showers.records import record_of
from calo_train.showers.statistics import gather_statistics
from calo_train.showers.symmetries import symmetry_images
from calo_train.training.compose import compose_config

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.geometry import Geometry

FILES = sorted((conf_folder() / "dataset").glob("*.yaml"))
GEOMETRIES = sorted((conf_folder() / "geometry").glob("*.yaml"))


def geometry(name: str) -> Geometry:
    text = (conf_folder() / "geometry" / f"{name}.yaml").read_text(encoding="utf-8")
    return geometry_from_mapping(yaml.safe_load(text))


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
    """Shapes of 2005.05334, 2302.11594, 2410.21611 and 1712.10321."""
    assert {path.stem: geometry(path.stem).num_voxels for path in GEOMETRIES} == {
        "calochallenge_ds1_photons": 368,
        "calochallenge_ds1_pions": 533,
        "calochallenge_ds2": 6480,
        "calochallenge_ds3": 40500,
        "calogan": 504,
        "ild_30x10x10": 3000,
        "ild_30x30x30": 27000,
    }


def test_depths_are_those_of_the_simulations() -> None:
    """45 x 3.4 mm are the 153 mm of Par04; CaloGAN's layers end at 90, 437 and 480 mm."""
    ends = {
        name: [layer.depth + layer.thickness for layer in geometry(name).layers]
        for name in ("calochallenge_ds2", "calochallenge_ds3", "calogan")
    }
    assert ends["calogan"] == [90.0, 437.0, 480.0]
    assert ends["calochallenge_ds2"][-1] == pytest.approx(153.0)
    assert ends["calochallenge_ds3"] == ends["calochallenge_ds2"]


def test_cells_of_calogan_are_of_the_published_sizes() -> None:
    """160 x 5, 40 x 40 and 40 x 80 mm2."""
    widths = [
        tuple(axis.edges[1] - axis.edges[0] for axis in layer.axes)
        for layer in geometry("calogan").layers
    ]
    assert widths == [(160.0, 5.0), (40.0, 40.0), (40.0, 80.0)]


# The layers with cells, and one without, of the binning files of the challenge's evaluation code:
# angular cells and radial edges in mm.
BINNING = {
    "calochallenge_ds1_photons": [
        (1, "0,5,10,30,50,100,200,400,600"),
        (10, "0,2,4,6,8,10,12,15,20,30,40,50,70,90,120,150,200"),
        (10, "0,2,5,10,15,20,25,30,40,50,60,80,100,130,160,200,250,300,350,400"),
        (1, "0,50,100,200,400,600"),
        (1, "0"),
        (1, "0,100,200,400,1000,2000"),
    ],
    "calochallenge_ds1_pions": [
        (1, "0,5,10,30,50,100,200,400,600"),
        (10, "0,1,4,7,10,15,30,50,90,150,200"),
        (10, "0,5,10,20,30,50,80,130,200,300,400"),
        (1, "0,50,100,200,400,600"),
        (1, "0"),
        (10, "0,10,20,30,50,80,100,130,160,200,250,300,350,400,1000,2000"),
        (10, "0,10,20,30,50,80,100,130,160,200,250,300,350,400,600,1000,2000"),
        (1, "0,50,100,150,200,250,300,400,600,1000,2000"),
    ],
    "calochallenge_ds2": 45 * [(16, ",".join(str(4.65 * edge) for edge in range(10)))],
    "calochallenge_ds3": 45 * [(50, ",".join(str(2.325 * edge) for edge in range(19)))],
}


@pytest.mark.parametrize("name", BINNING)
def test_geometry_is_that_of_the_binning_file(name: str, tmp_path: Path) -> None:
    """Edge by edge, through the reader of the challenge's own format."""
    layers = "".join(
        f'<Layer id="{index}" r_edges="{edges}" n_bin_alpha="{cells}"/>'
        for index, (cells, edges) in enumerate(BINNING[name])
    )
    path = tmp_path / "binning.xml"
    path.write_text(f'<Bins><Bin pid="22" name="particle">{layers}</Bin></Bins>')
    assert geometry(name).difference(geometry_from_xml(path, "particle")) is None


def test_energies_of_data_set_1_are_powers_of_two() -> None:
    """2^8 to 2^22 MeV, and nothing between (2410.21611)."""
    for name in ("calochallenge_ds1_photons", "calochallenge_ds1_pions"):
        spectrum = composed(name, "dataset.path=some.h5").energy_spectrum
        assert spectrum is not None
        assert spectrum.values == tuple(2.0**power for power in range(8, 23))


def test_published_records_are_of_archives_that_can_be_asked() -> None:
    configs = [composed(path.stem, "dataset.path=some.h5") for path in FILES]
    dois = {config.name: config.doi for config in configs}
    assert {name for name, doi in dois.items() if doi is None} == {"ild_sample", "native"}
    homes = {name: record_of(doi).home for name, doi in dois.items() if doi is not None}
    assert homes["calogan_pions"] == "https://data.mendeley.com"
    assert homes["calochallenge_ds3"] == "https://zenodo.org"


@pytest.mark.parametrize(
    ("given", "configured"),
    itertools.permutations(
        [f"calochallenge_ds{which}" for which in ("1_photons", "1_pions", "2", "3")], 2
    ),
)
def test_file_of_another_set_is_refused_saying_which_it_is(
    given: str, configured: str, tmp_path: Path
) -> None:
    """D3: the files say nothing of themselves, but their numbers of voxels differ."""
    path = tmp_path / "showers.h5"
    with h5py.File(path, "w") as file:
        file["incident_energies"] = np.full((3, 1), 1024.0)
        file["showers"] = np.ones((3, geometry(given).num_voxels), np.float32)
    with pytest.raises(GeometryMismatch) as caught:
        open_dataset(composed(configured, f"dataset.path={path}"))
    assert configured in caught.value.what
    assert caught.value.do.endswith(f"this file fits dataset={given}")


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
