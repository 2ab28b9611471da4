"""The CaloChallenge's numbers computed the way its evaluation does: numpy, layer by layer.

Whole arrays in float64, written from the published definitions (2410.21611). Slow and plain: the
peer of `observables.py`, and the independent reference that tests hold the product against.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PolarLayer:
    """Angular cells of [-pi, pi], radial edges in mm, and the challenge's layer number."""

    number: int
    num_alpha: int
    r_edges: tuple[float, ...]

    @property
    def num_voxels(self) -> int:
        return self.num_alpha * (len(self.r_edges) - 1)

    def centres(self) -> tuple[Array, Array, Array]:
        """Give eta, phi and r of each voxel, the radius fastest."""
        alpha_edges = np.linspace(-np.pi, np.pi, self.num_alpha + 1)
        alpha = np.repeat((alpha_edges[:-1] + alpha_edges[1:]) / 2, len(self.r_edges) - 1)
        edges = np.asarray(self.r_edges)
        r = np.tile((edges[:-1] + edges[1:]) / 2, self.num_alpha)
        return r * np.cos(alpha), r * np.sin(alpha), r


@dataclass
class Features:
    """High-level features of showers, by layer number."""

    e_tot: Array
    voxels: Array
    energy: dict[int, Array] = field(default_factory=dict)
    ec_eta: dict[int, Array] = field(default_factory=dict)
    ec_phi: dict[int, Array] = field(default_factory=dict)
    width_eta: dict[int, Array] = field(default_factory=dict)
    width_phi: dict[int, Array] = field(default_factory=dict)
    ec_r: dict[int, Array] = field(default_factory=dict)
    width_r: dict[int, Array] = field(default_factory=dict)
    sparsity: dict[int, Array] = field(default_factory=dict)


def features(showers: Array, layers: Sequence[PolarLayer], threshold: float) -> Features:
    """Compute all features of showers (n, voxels) in MeV."""
    showers = np.where(showers < threshold, 0.0, showers)
    found = Features(showers.sum(axis=-1), showers)
    start = 0
    for layer in layers:
        voxels = showers[:, start : start + layer.num_voxels]
        start += layer.num_voxels
        number = layer.number
        eta, phi, r = layer.centres()
        found.energy[number] = voxels.sum(axis=-1)
        found.sparsity[number] = 1.0 - (voxels > 0).mean(axis=-1)
        found.ec_r[number], found.width_r[number] = _moments(r, voxels)
        if layer.num_alpha > 1:
            found.ec_eta[number], found.width_eta[number] = _moments(eta, voxels)
            found.ec_phi[number], found.width_phi[number] = _moments(phi, voxels)
    return found


def _moments(coordinate: Array, energy: Array) -> tuple[Array, Array]:
    centre = (coordinate * energy).sum(axis=-1) / (energy.sum(axis=-1) + 1e-16)
    square = (coordinate * coordinate * energy).sum(axis=-1) / (energy.sum(axis=-1) + 1e-16)
    return centre, np.sqrt((square - centre**2).clip(min=0.0))


def separation(reference: Array, sample: Array, edges: Array) -> float:
    """Give the separation power of values in bins [a, b), the last closed; 1 for an empty one."""
    histograms = []
    for values in (reference, sample):
        counts, _ = np.histogram(values, bins=edges)
        if counts.sum() == 0:
            return 1.0
        histograms.append(counts / counts.sum())
    h, g = histograms
    return float(0.5 * ((h - g) ** 2 / (h + g + 1e-16)).sum())


def separations(
    dataset: str,
    reference: Features,
    sample: Features,
    incident: tuple[Array, Array],
    threshold: float,
) -> dict[str, dict[int, float]]:
    """Give every official separation power by observable and layer number (0 without layers)."""
    is_small = dataset in ("2", "3")
    ratios = reference.e_tot / incident[0], sample.e_tot / incident[1]
    found = {
        "visible_fraction": {0: separation(*ratios, np.linspace(0.5, 1.5, 101))},
        "cell_energy_spectrum": {
            0: separation(
                reference.voxels.ravel(),
                sample.voxels.ravel(),
                np.geomspace(threshold, reference.voxels.max(), 50),
            )
        },
        "layer_energy": {
            number: separation(
                energy, sample.energy[number], np.geomspace(threshold, energy.max(), 40)
            )
            for number, energy in reference.energy.items()
        },
    }
    for name, attribute, small, near, wide, wide_layers in (
        ("layer_centroid_x", "ec_eta", (-30, 30), (-100, 100), (-500, 500), (12, 13)),
        ("layer_centroid_y", "ec_phi", (-30, 30), (-100, 100), (-500, 500), (12, 13)),
        ("layer_width_x", "width_eta", (0, 30), (0, 100), (0, 400), (12, 13)),
        ("layer_width_y", "width_phi", (0, 30), (0, 100), (0, 400), (12, 13)),
        ("layer_centroid_r", "ec_r", (0, 42), (0, 500), (0, 1500), (12, 13, 14)),
        ("layer_width_r", "width_r", (0, 20), (0, 500), (0, 1500), (12, 13, 14)),
    ):
        found[name] = {}
        for number, values in getattr(reference, attribute).items():
            ends = small if is_small else wide if number in wide_layers else near
            edges = np.linspace(*ends, 101)
            found[name][number] = separation(values, getattr(sample, attribute)[number], edges)
    found["layer_sparsity"] = {
        number: separation(values, sample.sparsity[number], np.linspace(0, 1, 21))
        for number, values in reference.sparsity.items()
    }
    if not is_small:
        found["visible_fraction_at"] = _at_energies(dataset, ratios, incident)
    return found


def _at_energies(
    dataset: str, ratios: tuple[Array, Array], incident: tuple[Array, Array]
) -> dict[int, float]:
    found = {}
    for index, power in enumerate(range(8, 23)):
        chosen = [(e >= 2.0**power) & (e < 2.0 ** (power + 1)) for e in incident]
        if not chosen[0].any():
            continue
        is_narrow = dataset == "1-photons" and index > 3
        edges = np.linspace(0.9, 1.1, 21) if is_narrow else np.linspace(0.4, 1.4, 21)
        found[2**power] = separation(ratios[0][chosen[0]], ratios[1][chosen[1]], edges)
    return found
