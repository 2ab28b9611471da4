"""Deposits as families prepare them: readout threshold, sums of layers; MeV."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from calo_train.geometry import Geometry


def apply_threshold(energies: Tensor, threshold: float) -> Tensor:
    """Set what the readout does not see (energy < threshold) to zero; NaN stays."""
    return torch.where(energies < threshold, 0.0, energies)


def layer_sums(energies: Tensor, geometry: Geometry) -> Tensor:
    """Sum voxels (n, voxels) to layers, (n, layers)."""
    layer_of_voxel = torch.as_tensor(geometry.layer_of_voxel, device=energies.device)
    sums = energies.new_zeros(len(energies), geometry.num_layers)
    return sums.index_add_(1, layer_of_voxel, energies)
