"""What is measured of each layer of a shower, and between layers that follow each other.

Centroids and widths are those of the CaloChallenge (2410.21611): along x and y for polar layers
(called eta and phi there), and along r; an empty layer has 0, and so has the spread of a single
cell. The widths with (M - 1)/M are those of D+D ARM, undefined for a single cell.
"""

from __future__ import annotations

import numpy as np

from calo_train.evaluation.deposits import Deposits, FloatArray, ratio
from calo_train.evaluation.observable import observable


@observable(
    "energy of layers", symbol=r"E_\mathrm{layer}", section="Depth", unit="MeV", scale="log",
    is_per_layer=True, is_exact=True,
)  # fmt: skip
def layer_energy(deposits: Deposits) -> FloatArray:
    """Sum of each layer's voxels."""
    return deposits.layer_energies


@observable(
    "energy share of layers", symbol=r"E_\mathrm{layer}/E_\mathrm{vis}", section="Depth",
    is_per_layer=True, is_headline=False,
)  # fmt: skip
def layer_fraction(deposits: Deposits) -> FloatArray:
    """Energy of each layer over the visible energy."""
    return ratio(deposits.layer_energies, deposits.visible_energy[:, None])


@observable(
    "centroid along <x> of layers", symbol=r"\langle <x> \rangle_{\mathrm{layer}}",
    section="Width", unit="mm", is_per_layer=True, is_exact=True,
)  # fmt: skip
def layer_centroid_x(deposits: Deposits) -> FloatArray:
    """Energy-weighted mean of the first transverse coordinate."""
    return deposits.layer_means("x")


@observable(
    "centroid along <y> of layers", symbol=r"\langle <y> \rangle_{\mathrm{layer}}",
    section="Width", unit="mm", is_per_layer=True, is_exact=True,
)  # fmt: skip
def layer_centroid_y(deposits: Deposits) -> FloatArray:
    """Energy-weighted mean of the second transverse coordinate."""
    return deposits.layer_means("y")


@observable(
    "mean radius of layers", symbol=r"\langle r \rangle_{\mathrm{layer}}", section="Width",
    unit="mm", is_per_layer=True, needs="r", is_exact=True,
)  # fmt: skip
def layer_centroid_r(deposits: Deposits) -> FloatArray:
    """Energy-weighted mean of the radius, for polar layers."""
    return deposits.layer_means("r")


@observable(
    "width along <x> of layers", symbol=r"\sigma_{<x>}", section="Width", unit="mm",
    is_per_layer=True, is_exact=True,
)  # fmt: skip
def layer_width_x(deposits: Deposits) -> FloatArray:
    """Energy-weighted standard deviation of the first transverse coordinate."""
    return np.sqrt(deposits.layer_variances("x"))


@observable(
    "width along <y> of layers", symbol=r"\sigma_{<y>}", section="Width", unit="mm",
    is_per_layer=True, is_exact=True,
)  # fmt: skip
def layer_width_y(deposits: Deposits) -> FloatArray:
    """Energy-weighted standard deviation of the second transverse coordinate."""
    return np.sqrt(deposits.layer_variances("y"))


@observable(
    "radial width of layers", symbol=r"\sigma_{r}", section="Width", unit="mm",
    is_per_layer=True, needs="r", is_exact=True,
)  # fmt: skip
def layer_width_r(deposits: Deposits) -> FloatArray:
    """Energy-weighted standard deviation of the radius, for polar layers."""
    return np.sqrt(deposits.layer_variances("r"))


@observable(
    "unbiased width along <x> of layers", symbol=r"s_{<x>}", section="Width", unit="mm",
    is_per_layer=True, is_headline=False,
)  # fmt: skip
def layer_spread_x(deposits: Deposits) -> FloatArray:
    """Width with (M - 1)/M for M cells above the threshold (D+D ARM); NaN for M below 2."""
    return np.sqrt(deposits.unbiased_layer_variances("x"))


@observable(
    "unbiased width along <y> of layers", symbol=r"s_{<y>}", section="Width", unit="mm",
    is_per_layer=True, is_headline=False,
)  # fmt: skip
def layer_spread_y(deposits: Deposits) -> FloatArray:
    """The same along the second transverse coordinate."""
    return np.sqrt(deposits.unbiased_layer_variances("y"))


@observable(
    "hits of layers", symbol=r"n_\mathrm{hit,layer}", section="Cells", is_count=True,
    is_per_layer=True,
)  # fmt: skip
def layer_hits(deposits: Deposits) -> FloatArray:
    """Voxels with energy after the threshold."""
    return deposits.layers.hits


@observable(
    "sparsity of layers", symbol=r"1 - n_\mathrm{hit}/n_\mathrm{voxel}", section="Cells",
    is_per_layer=True, is_headline=False,
)  # fmt: skip
def layer_sparsity(deposits: Deposits) -> FloatArray:
    """Share of empty voxels (2410.21611)."""
    sparsity: FloatArray = 1.0 - deposits.layers.hits / deposits.grid.plan.sizes
    return sparsity


@observable(
    "brightest voxel's share of layers", symbol=r"E_{(1)}/E_\mathrm{layer}", section="Cells",
    is_per_layer=True,
)  # fmt: skip
def layer_brightest_share(deposits: Deposits) -> FloatArray:
    """Largest voxel over the layer's energy (CaloFlow, 2106.05285); NaN for an empty layer."""
    return deposits.per_layer_energy(deposits.layers.brightest, otherwise=np.nan)


@observable(
    "second brightest voxel's share of layers", symbol=r"E_{(2)}/E_\mathrm{layer}",
    section="Cells", is_per_layer=True, is_headline=False,
)  # fmt: skip
def layer_second_share(deposits: Deposits) -> FloatArray:
    """Second largest voxel over the layer's energy; NaN for an empty layer."""
    return deposits.per_layer_energy(deposits.layers.second_brightest, otherwise=np.nan)


@observable(
    "cosine between layers and the next", symbol=r"\cos(E_{l}, E_{l+1})", section="Depth",
    is_between_layers=True,
)  # fmt: skip
def layer_cosine(deposits: Deposits) -> FloatArray:
    """E_l . E_l+1 / |E_l| |E_l+1| of voxel energies, for layers of equal grid.

    NaN where one of the two is empty or their grids differ.
    """
    norms = np.sqrt(deposits.layers.squares)
    cosine = ratio(deposits.layers.products[:, 1:], norms[:, :-1] * norms[:, 1:], otherwise=np.nan)
    cosine[:, ~deposits.grid.plan.is_like_previous[1:]] = np.nan
    return cosine


@observable(
    "centroid distance between layers and the next", symbol=r"d_{l,l+1}", section="Width",
    unit="mm", is_between_layers=True,
)  # fmt: skip
def layer_distance(deposits: Deposits) -> FloatArray:
    """Length between the centroids of layers that follow each other; NaN if one is empty."""
    return np.sqrt(deposits.layer_steps("x") ** 2 + deposits.layer_steps("y") ** 2)


@observable(
    "centroid step along <x> between layers and the next", symbol=r"\Delta <x>_{l,l+1}",
    section="Width", unit="mm", is_between_layers=True, is_headline=False,
)  # fmt: skip
def layer_distance_x(deposits: Deposits) -> FloatArray:
    """Difference of the centroids of layers that follow each other; NaN if one is empty."""
    return deposits.layer_steps("x")


@observable(
    "centroid step along <y> between layers and the next", symbol=r"\Delta <y>_{l,l+1}",
    section="Width", unit="mm", is_between_layers=True, is_headline=False,
)  # fmt: skip
def layer_distance_y(deposits: Deposits) -> FloatArray:
    """The same along the second transverse coordinate."""
    return deposits.layer_steps("y")
