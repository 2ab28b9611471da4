"""Stacks of materials as media, against the tables, other codes and a naive mix."""

from __future__ import annotations

import numpy as np
import pytest

from calo_train.cli.inputs import named_dataset
from calo_train.errors import UsageError
from calo_train.showers.simulator.axis_profile import LayerStack
from calo_train.showers.simulator.materials import MATERIALS, Slab, mixed
from calo_train.showers.simulator.settings import SimulatorConfig, StackRegion


def layer_stack(dataset: str) -> LayerStack:
    config = named_dataset(dataset)
    assert config.simulator is not None
    assert config.detector is not None
    return LayerStack.of(config.detector, config.simulator)


def test_one_material_has_its_own_tabulated_lengths() -> None:
    """PDG: tungsten X0 3.504 mm, interaction length 99.46 mm, lead tungstate X0 8.9 mm."""
    tungsten = mixed([Slab(MATERIALS["W"], 2.0, is_active=True)])
    assert tungsten.radiation_length == pytest.approx(3.504, rel=1e-3)
    assert tungsten.interaction_length == pytest.approx(99.46, rel=1e-3)
    assert tungsten.is_homogeneous
    assert tungsten.active_share == 1
    crystal = mixed([Slab(MATERIALS["PbWO4"], 8.9, is_active=True)])
    assert crystal.radiation_length == pytest.approx(8.9, rel=0.01)


@pytest.mark.parametrize(
    ("material", "radius"), [("W", 9.33), ("Pb", 16.0), ("PbWO4", 19.6), ("Cu", 15.7)]
)
def test_moliere_radii_are_the_tabulated_ones(material: str, radius: float) -> None:
    """PDG values in mm; the fit of the critical energy is good to a few per cent."""
    assert mixed([Slab(MATERIALS[material], 1.0, is_active=True)]).moliere_radius == (
        pytest.approx(radius, rel=0.1)
    )


def test_known_stacks_are_as_deep_as_published() -> None:
    """ILD: about 24 X0. Par04 voxel of 3.4 mm: 0.81 X0."""
    assert layer_stack("ild_photons").radiation_depths[-1] == pytest.approx(24, abs=0.5)
    depths = layer_stack("calochallenge_ds2").radiation_depths
    np.testing.assert_allclose(np.diff(depths), 0.81, atol=0.005)


def test_mix_is_that_of_atoms_counted_in_thin_sheets() -> None:
    """Walk through a finely cut stack and add up X0, energy loss and mass, sheet by sheet."""
    slabs = [Slab(MATERIALS["W"], 2.1, False), Slab(MATERIALS["Si"], 0.5, True)]
    depth = mass = charge = lost = seen = 0.0
    for slab in slabs:
        for _ in range(1000):
            sheet = slab.material.density * slab.thickness / 10 / 1000  # g/cm2
            depth += sheet / slab.material.radiation_length
            mass += sheet
            charge += sheet * slab.material.atomic_number
            lost += sheet * slab.material.ionisation
            seen += sheet * slab.material.ionisation * slab.is_active
    medium = mixed(slabs)
    assert medium.radiation_length == pytest.approx(2.6 / depth, rel=1e-9)
    assert medium.atomic_number == pytest.approx(charge / mass, rel=1e-9)
    assert medium.active_share == pytest.approx(seen / lost, rel=1e-9)
    assert medium.response_ratio == pytest.approx(1 / (1 + 0.007 * 60))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"simulator.particle": "muon"}, "electron, photon, pion"),
        ({"simulator.polar_angle": "80:89deg"}, "rad"),
        ({"simulator.sampling_resolution": "-1"}, "0.17"),
    ],
)
def test_wrong_beams_are_refused_with_what_to_do(values: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        named_dataset("ild_photons", values)
    assert words in caught.value.do


@pytest.mark.parametrize(
    ("slabs", "words"),
    [([], "at least one material"), ([{"material": "W", "thickness": "1e-9mm"}], "1 nm")],
)
def test_regions_of_nothing_are_refused(slabs: list[dict[str, str]], words: str) -> None:
    """Their radiation lengths would be divided by."""
    with pytest.raises(UsageError) as caught:
        SimulatorConfig([StackRegion(0, slabs)], 0.17, "electron")
    assert words in caught.value.do
