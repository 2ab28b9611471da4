"""Shares of energies, as the two flows of CaloFlow see them (2106.05285 Sec. 3), on tensors alone.

Energies are MeV; layers are counted from 0. A sum that is zero divides nothing: its shares are 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calo_train.nn.running_sums import running_sums

CONTEXT_OFFSET = 1e-3  # MeV added in the logarithm of a layer energy: 1e-8 of 100 GeV, data.py


def energy_shares(layer_energies: Tensor, largest: Tensor) -> Tensor:
    """Map layer energies (n, layers) to shares u_0, u_1, .. (n, layers), in [0, 1].

    u_0 = E_tot / `largest` (n,), the highest visible energy of each shower; u_k =
    E_{k-1} / (E_{k-1} + E_k + ..), what the next layer takes of the rest (2106.05285 eq. for three
    layers).
    """
    remaining = running_sums(layer_energies.flip(1), 1).flip(1)
    total = remaining[:, :1] / largest[:, None]
    taken = layer_energies[:, :-1] / _divisor(remaining[:, :-1])
    return torch.cat([total, taken], dim=1)


def layer_energies_of(shares: Tensor, largest: Tensor) -> Tensor:
    """Undo `energy_shares`: what a layer leaves is shared by the next ones, the last takes all."""
    last = torch.ones_like(shares[:, :1])
    taken = torch.cat([shares[:, 1:], last], dim=1)
    left = torch.cat([last, (1 - shares[:, 1:]).cumprod(dim=1)], dim=1)
    return (shares[:, :1] * largest[:, None]) * left * taken


def voxel_shares(voxels: Tensor, layer_energies: Tensor, layer_of_voxel: Tensor) -> Tensor:
    """Divide voxels (n, voxels) by the energies of their layers (n, layers)."""
    return voxels / _divisor(layer_energies).index_select(1, layer_of_voxel)


def layer_energy_context(layer_energies: Tensor, unit: float) -> Tensor:
    """log10((E_k + 1 keV) / unit).

    For a unit of 1 GeV it is the released code's log10(E_k / 100 GeV + 1e-8) + 2.
    """
    return torch.log10((layer_energies + CONTEXT_OFFSET) / unit)


def _divisor(sums: Tensor) -> Tensor:
    """Keep a sum away from zero, and NaN as it is."""
    return sums.clamp_min(torch.finfo(sums.dtype).tiny)
