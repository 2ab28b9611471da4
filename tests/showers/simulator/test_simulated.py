"""Simulated showers: what physics says of them, and that nothing but seed and number decides."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import detectors
import numpy as np
import pytest
from stacks import by_layer, known, simulated

from calo_train.cli.inputs import named_dataset
from calo_train.geometry import Axis, Geometry, Layer
from calo_train.quantities import Spectrum
from calo_train.showers.dataset import open_dataset, simulated_showers
from calo_train.showers.layouts import open_file
from calo_train.showers.simulator import SimulatorConfig, StackRegion
from calo_train.showers.simulator.origin import SIMULATION_NOTE
from calo_train.showers.simulator.simulated import SimulatedShowers
from calo_train.showers.simulator.writing import write_simulated
from calo_train.showers.source import ShowerSource, open_paths

if TYPE_CHECKING:
    from pathlib import Path

DEEP = 60  # layers of 0.6 X0: a shower of any energy ends inside


def deep(cells: int = 1, half: float = 1e5) -> Geometry:
    """Sixty layers, so wide that nothing leaves."""
    axes = tuple(detectors.axis(name, cells, -half, half) for name in "xy")
    return Geometry("deep", tuple(Layer(axes, 2.5 * i, 2.5) for i in range(DEEP)))  # type: ignore[arg-type]


def in_deep(number: int, energy: float, geometry: Geometry | None = None, **values: Any) -> Any:
    rows = simulated(geometry or deep(), number, energy=energy, layer_lengths=[], **values)
    return rows, rows.read(0, number, rows.detector)


@pytest.mark.parametrize("kind", [*detectors.ALL, "polar_ragged"])
@pytest.mark.parametrize("particle", ["electron", "photon", "pion"])
@pytest.mark.parametrize("angle", [None, "0.3rad", "0:0.5rad"])
def test_every_geometry_is_filled_within_its_energy(
    kind: str, particle: str, angle: str | None
) -> None:
    """No more is seen than the active share of 10 GeV allows, five sampling widths aside."""
    geometry = getattr(detectors, kind)()
    rows = simulated(geometry, 100, particle=particle, polar_angle=angle)
    showers = rows.read(0, 100, geometry)
    total = showers.energies.sum(axis=1, dtype=np.float64)
    assert np.isfinite(showers.energies).all()
    assert (showers.energies >= 0).all()
    assert (total > 0).any() or geometry.num_layers == 1  # a pion hardly interacts in one
    ratio = 0.05 * 0.71  # active share of the stack is below 0.05, e/mip 0.70
    assert (total <= 1e4 * ratio * (1 + 5 * 0.15 / np.sqrt(10))).all()


@pytest.mark.parametrize("kind", [*detectors.ALL, "polar_ragged"])
@pytest.mark.parametrize("angle", [None, "0:0.5rad"])
def test_showers_do_not_depend_on_what_is_read_with_them(
    kind: str, angle: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    geometry = getattr(detectors, kind)()
    rows = simulated(geometry, 40, polar_angle=angle)
    whole = rows.read(0, 40, geometry)
    monkeypatch.setattr("calo_train.showers.simulator.simulated._BLOCK_BYTES", 1)
    pieces = [rows.read(start, stop, geometry) for start, stop in ((0, 7), (7, 8), (8, 40))]
    np.testing.assert_array_equal(whole.energies, np.concatenate([p.energies for p in pieces]))
    for name, values in whole.conditions.items():
        found = np.concatenate([piece.conditions[name] for piece in pieces])
        np.testing.assert_array_equal(values, found)


def test_another_seed_gives_other_showers_and_another_fingerprint() -> None:
    sources = []
    for seed in (0, 0, 1):
        rows = simulated(detectors.cartesian(), 20, seed=seed)
        sources.append(ShowerSource([rows], rows.detector))
    same, again, other = (source.fingerprint() for source in sources)
    assert same == again != other
    assert not np.array_equal(sources[0].read(0, 20).energies, sources[2].read(0, 20).energies)


@pytest.mark.parametrize(("particle", "shift"), [("electron", -0.5), ("photon", 0.5)])
@pytest.mark.parametrize("energy", [1e4, 1e5])
def test_maximum_follows_the_logarithm_of_the_energy(
    particle: str, shift: float, energy: float
) -> None:
    """ln(E/Ec) -0.5 for electrons, +0.5 for photons (PDG review), within 1.1 X0.

    EGSnrc itself is 0.6 X0 before that in the ILD stack, and layers here are 0.6 X0 deep.
    """
    rows, showers = in_deep(600, energy, particle=particle)
    stack = rows._simulator.stack
    depths = (stack.radiation_depths[1:] + stack.radiation_depths[:-1]) / 2
    found = depths[by_layer(showers).mean(axis=0).argmax()]
    assert found == pytest.approx(np.log(energy / stack.leading.critical_energy) + shift, abs=1.1)


def test_one_moliere_radius_holds_nine_tenths() -> None:
    """The definition of R_M; the parametrisation meets it within 4 %."""
    turn = detectors.axis("alpha", 1, -np.pi, np.pi, unit="rad", is_periodic=True)
    rows, _ = in_deep(1, 5e4)
    radius = rows._simulator.stack.leading.moliere_radius
    axes = (turn, Axis("r", (0.0, radius, 1e6)))
    geometry = Geometry("rings", tuple(Layer(axes, 2.5 * i, 2.5) for i in range(DEEP)))
    _, showers = in_deep(400, 5e4, geometry)
    inside = showers.energies.reshape(-1, 2)[:, 0].sum() / showers.energies.sum()
    assert inside == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize("energy", [4e3, 1e5])
def test_contained_showers_have_the_sampling_resolution(energy: float) -> None:
    """c/sqrt(E) of the sum; 1500 showers know it to 2 %."""
    _, showers = in_deep(1500, energy, sampling_resolution=0.15)
    total = showers.energies.sum(axis=1, dtype=np.float64)
    expected = 0.15 / np.sqrt(energy / 1e3)
    assert total.std() / total.mean() == pytest.approx(expected, rel=0.12)


def test_homogeneous_detectors_see_all_of_a_contained_shower() -> None:
    slabs: list[dict[str, Any]] = [{"material": "PbWO4", "thickness": "10mm", "active": True}]
    config = SimulatorConfig(
        [StackRegion(0, slabs)], 0.0, "electron", layer_lengths=["10mm"] * DEEP
    )
    crystal = SimulatedShowers(deep(), config, Spectrum(1e4, 1e4), 50)
    total = crystal.read(0, 50, deep()).energies.sum(axis=1)
    np.testing.assert_allclose(total, 1e4, rtol=0.02)


def test_tilted_showers_walk_along_the_first_axis() -> None:
    """At 0.3 rad the centre of a layer at depth z lies at z tan 0.3."""
    geometry = deep(cells=24, half=120.0)
    _, showers = in_deep(40, 2e4, geometry, polar_angle="0.3rad")
    energies = showers.energies.reshape(40, DEEP, 24, 24).sum(axis=(0, 3))
    centres = geometry.layers[0].axes[0].centres
    for layer in (8, 15, 25):
        mean = (energies[layer] * centres).sum() / energies[layer].sum()
        assert mean == pytest.approx((2.5 * layer + 1.25) * np.tan(0.3), abs=2.5)


def test_pions_begin_after_an_interaction_length() -> None:
    """exp(-L/lambda) of them leave nothing in a detector of L; 5 sigma of 2000 showers."""
    rows, showers = in_deep(2000, 5e4, particle="pion")
    depth = rows._simulator.stack.interaction_depths[-1]
    empty = (showers.energies.sum(axis=1) == 0).mean()
    assert empty == pytest.approx(np.exp(-depth), abs=5 * np.sqrt(np.exp(-depth) / 2000))


def test_files_and_sources_say_that_nothing_was_transported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = named_dataset("ild_photons_core", {"source": "simulated", "n_showers": "70"})
    with caplog.at_level(logging.WARNING, "calo_train"):
        source = open_dataset(config)
    assert SIMULATION_NOTE in caplog.text
    rows = simulated_showers(config, 70)
    path = tmp_path / "simulated.h5"
    assert write_simulated(rows, path, config.layout, force=False) == "getting_high"
    assert open_file(path).attributes["notes"] == SIMULATION_NOTE
    with open_paths([path], geometry=config.detector) as written:
        np.testing.assert_array_equal(written.read(0, 70).energies, source.read(0, 70).energies)
        assert written.description.endswith("photon")


def test_known_detectors_see_the_fraction_that_their_data_set_states() -> None:
    """Within 5 % of EGSnrc's: the stacks and e/mip are not fitted except for Par04."""
    cases = {"ild_photons_core": "10:100GeV", "calochallenge_ds2": "log:1:1000GeV"}
    for name, energies in cases.items():
        showers = known(name, energies, 400)
        seen = showers.energies.sum() / showers.conditions["incident_energy"].sum()
        assert seen == pytest.approx(named_dataset(name).visible_fraction, rel=0.05)


@pytest.mark.parametrize("energies", ["10:20GeV", "90:100GeV"])
def test_mean_profile_peaks_where_that_of_egsnrc_does(energies: str) -> None:
    """Within one layer on the embedded EGSnrc showers of the ILD core."""
    config = named_dataset("ild_sample")
    config.path = "embedded:ild_sample.h5"
    with open_dataset(config) as source:
        egsnrc = source.read(0, source.num_showers)
    low, high = (1e3 * float(end) for end in energies.removesuffix("GeV").split(":"))
    incident = egsnrc.conditions["incident_energy"]
    chosen = egsnrc.rows(np.flatnonzero((incident > low) & (incident < high)))
    peaks = [
        by_layer(showers).mean(axis=0).argmax()
        for showers in (chosen, known("ild_sample", energies, 1000))
    ]
    assert abs(int(peaks[0]) - int(peaks[1])) <= 1
