"""Pre- and postprocessing of SuperCalo (2308.11700; code: Ian-Pang/supercalo), on tensors alone.

Energies are MeV. The logit of shares is `calo_train.nn.logit`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calo_train.nn.logit import inverse_logit

_SMALLEST_SUM = 1e-300  # no shares sum to less, but to zero; float32 has 1e-45


def incident_energy_context(incident_energy: Tensor) -> Tensor:
    """log10(E / MeV) - 4.5, in [-1.5, 1.5] for 1 GeV to 1 TeV."""
    return torch.log10(incident_energy) - 4.5


def coarse_features(coarse: Tensor, unit: float) -> Tensor:
    """log10(E_coarse / unit) + 6 of noisy coarse voxels, above zero."""
    return torch.log10(coarse / unit) + 6


def coarse_energies(features: Tensor, unit: float) -> Tensor:
    """Undo `coarse_features`."""
    return unit * 10 ** (features - 6)


def coarse_layer_context(layer_energy: Tensor) -> Tensor:
    """log10(E_z / MeV) / 4 of noisy coarse layers, above zero."""
    return torch.log10(layer_energy) / 4


def share_energy(features: Tensor, energy: Tensor) -> Tensor:
    """Share energies (n,) among fine voxels by features (n, d), which are logits of shares.

    Shares are divided by their sum; where all are zero, so is the result.
    """
    shares = inverse_logit(features)
    tiniest = max(_SMALLEST_SUM, torch.finfo(shares.dtype).tiny)
    return shares * (energy / shares.sum(dim=1).clamp_min(tiniest))[:, None]


def scaled_to_sums(parts: Tensor, sums: Tensor) -> Tensor:
    """Scale parts (n, groups, k) >= 0 to given sums (n, groups); equal parts where all are 0."""
    totals = parts.sum(dim=2, keepdim=True)
    is_empty = totals == 0
    shares = torch.where(is_empty, 1 / parts.shape[2], parts / totals.masked_fill(is_empty, 1.0))
    return shares * sums[..., None]
