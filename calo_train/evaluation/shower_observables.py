"""What is measured of a whole shower: one function each, from its thresholded deposits alone.

A new observable is a function under `@observable`, here or beside; tables, distances, floors,
metrics.json and figures follow from it. Definitions: Getting High (2005.05334) and L2LFlows
(2302.11594); indices count layers from 0, as there. <x> and <y> in texts become the detector's own
axis names.
"""

from __future__ import annotations

import numpy as np

from calo_train.evaluation.deposits import Deposits, FloatArray, ratio
from calo_train.evaluation.observable import observable


@observable("visible energy", symbol=r"E_\mathrm{vis}", section="Energy", unit="MeV", scale="auto")
def visible_energy(deposits: Deposits) -> FloatArray:
    """Sum of all voxels."""
    return deposits.visible_energy


@observable(
    "visible over incident energy", symbol=r"E_\mathrm{vis}/E_\mathrm{inc}", section="Energy"
)
def visible_fraction(deposits: Deposits) -> FloatArray:
    """Response of the calorimeter."""
    return ratio(deposits.visible_energy, deposits.incident_energy)


@observable(
    "hits above threshold", symbol=r"n_\mathrm{hit}", section="Cells", is_count=True, scale="auto"
)
def num_hits(deposits: Deposits) -> FloatArray:
    """Voxels with energy after the threshold."""
    return np.asarray(deposits.layers.hits.sum(axis=1), dtype=np.float64)


@observable(
    "share of the brightest voxel",
    symbol=r"E_\mathrm{max}/E_\mathrm{vis}",
    section="Cells",
    scale="auto",
)
def brightest_share(deposits: Deposits) -> FloatArray:
    """Largest voxel over the visible energy (CaloFlow, 2106.05285)."""
    return ratio(deposits.layers.brightest.max(axis=1), deposits.visible_energy)


@observable("centre of gravity in depth", symbol=r"m_{1,z}", section="Depth", unit="layer")
def centre_of_gravity_z(deposits: Deposits) -> FloatArray:
    """Energy-weighted mean of the layer index."""
    return deposits.layer_moment(1)


@observable("centre of gravity along <x>", symbol=r"m_{1,<x>}", section="Width", unit="mm")
def centre_of_gravity_x(deposits: Deposits) -> FloatArray:
    """Energy-weighted mean of the first transverse coordinate."""
    return deposits.mean_of("x")


@observable("centre of gravity along <y>", symbol=r"m_{1,<y>}", section="Width", unit="mm")
def centre_of_gravity_y(deposits: Deposits) -> FloatArray:
    """Energy-weighted mean of the second transverse coordinate."""
    return deposits.mean_of("y")


@observable("second moment in depth", symbol=r"m_{2,z}", section="Depth", unit="layer²")
def second_moment_z(deposits: Deposits) -> FloatArray:
    """Energy-weighted variance of the layer index."""
    return _variance(deposits.layer_moment(1), deposits.layer_moment(2))


@observable("second moment along <x>", symbol=r"m_{2,<x>}", section="Width", unit="mm²")
def second_moment_x(deposits: Deposits) -> FloatArray:
    """Energy-weighted variance of the first transverse coordinate."""
    return _variance(deposits.mean_of("x"), deposits.mean_of("x", 2))


@observable("second moment along <y>", symbol=r"m_{2,<y>}", section="Width", unit="mm²")
def second_moment_y(deposits: Deposits) -> FloatArray:
    """Energy-weighted variance of the second transverse coordinate."""
    return _variance(deposits.mean_of("y"), deposits.mean_of("y", 2))


@observable(
    "energy share of the first third of the depth", symbol=r"E_1/E_\mathrm{vis}", section="Depth"
)
def first_third(deposits: Deposits) -> FloatArray:
    """Share of layers 0 to L/3 (rounded down)."""
    return _third(deposits, 0)


@observable(
    "energy share of the second third of the depth", symbol=r"E_2/E_\mathrm{vis}", section="Depth"
)
def second_third(deposits: Deposits) -> FloatArray:
    """Share of layers L/3 to 2L/3 (rounded down)."""
    return _third(deposits, 1)


@observable(
    "energy share of the last third of the depth", symbol=r"E_3/E_\mathrm{vis}", section="Depth"
)
def last_third(deposits: Deposits) -> FloatArray:
    """Share of the layers from 2L/3 on (rounded down)."""
    return _third(deposits, 2)


def _variance(mean: FloatArray, mean_square: FloatArray) -> FloatArray:
    # Rounding can leave a shower of one voxel slightly below zero.
    variance: FloatArray = np.maximum(mean_square - mean**2, 0.0)
    return variance


def _third(deposits: Deposits, index: int) -> FloatArray:
    num_layers = deposits.grid.geometry.num_layers
    start, stop = index * num_layers // 3, (index + 1) * num_layers // 3
    energies: FloatArray = deposits.layer_energies[:, start:stop].sum(axis=1)
    return ratio(energies, deposits.visible_energy)
