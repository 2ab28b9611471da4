"""Pre- and postprocessing of L2LFlows (2302.11594 Sec. 3, App. B), on tensors alone.

Energies are MeV. Where the paper's digits are lost in print, the constants are those of the same
group's released successor (FLC-QU-hep/ConvL2LFlow), which agree with the surviving text.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from calo_train.quantities import MEV_PER_GEV

_LOG_OFFSET = 1e-6  # GeV, added inside the logarithm of a layer energy; ConvL2LFlow


def incident_energy_context(incident_energy: Tensor) -> Tensor:
    """2 log10(E / GeV) - 3, in [-1, 1] for 10 to 100 GeV (eq. B.3; ConvL2LFlow energy_gh.yaml)."""
    return 2 * torch.log10(incident_energy / MEV_PER_GEV) - 3


def layer_energy_context(layer_energy: Tensor) -> Tensor:
    """log10(E_i / GeV + 1e-6) + 1 (eq. B.7; ConvL2LFlow causal_gh.yaml)."""
    return torch.log10(layer_energy / MEV_PER_GEV + _LOG_OFFSET) + 1


def renormalise_and_cut(voxels: Tensor, layer_energy: Tensor, threshold: float) -> Tensor:
    """Scale the brightest voxels of each layer to its energy so that each passes the threshold.

    voxels (..., d) >= 0, layer_energy (...). With voxels sorted upwards and S_k the sum of those
    of rank >= k, the smallest k with v_k E / S_k >= threshold is kept (2302.11594 App. B.3; the
    exact rule is the original routine's in ConvL2LFlow generator.py). What is kept sums to the
    layer energy and lies above the threshold. No such k, or an empty layer, gives zeros; a layer
    with NaN gives NaN.
    """
    layer_energy = layer_energy[..., None]
    ascending = _sorted(voxels)
    tail_sums = ascending.flip(-1).cumsum(-1).flip(-1)
    # v_k E / S_k grows with k, so what passes is a run of ranks up to the brightest.
    passes = ascending * layer_energy >= threshold * tail_sums
    passes &= tail_sums > 0
    num_kept = passes.sum(dim=-1, keepdim=True, dtype=torch.int32)
    first = (voxels.shape[-1] - num_kept.to(torch.int64)).clamp_max(voxels.shape[-1] - 1)
    faintest = ascending.gather(-1, first)
    nothing = 0 * (ascending[..., -1:] + layer_energy)
    factor = torch.where(num_kept > 0, layer_energy / tail_sums.gather(-1, first), nothing)
    is_kept = voxels >= faintest
    num_equal = is_kept.sum(dim=-1, keepdim=True, dtype=torch.int32) - num_kept
    if bool(((num_equal > 0) & (num_kept > 0)).any()):
        is_kept &= ~_first_of_equals(voxels, faintest, num_equal)
    # A product with the mask takes a third of the time of a choice by it.
    return (voxels * factor).mul_(is_kept)


def _sorted(values: Tensor) -> Tensor:
    """Sort upwards; on a CPU numpy does so ten times faster than torch."""
    if values.device.type != "cpu":
        return values.sort(dim=-1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=-1))


def _first_of_equals(values: Tensor, chosen: Tensor, count: Tensor) -> Tensor:
    """Mark the first `count` of those values (..., d) that equal the `chosen` one (..., 1)."""
    is_equal = values == chosen
    return is_equal & (is_equal.cumsum(-1) <= count)
