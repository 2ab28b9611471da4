"""Pre- and postprocessing of iCaloFlow (2305.11934 Sec. 3), on tensors alone; energies are MeV."""

from __future__ import annotations

import torch
from torch import Tensor

from calo_train.nn.logit import logit

_INCIDENT_ENERGY_CENTRE = 4.5  # log10 of MeV: the middle of 1 GeV to 1 TeV


def incident_energy_context(incident_energy: Tensor) -> Tensor:
    """log10(E / MeV) - 4.5, in [-1.5, 1.5] for 1 GeV to 1 TeV (inductive-caloflow)."""
    return torch.log10(incident_energy) - _INCIDENT_ENERGY_CENTRE


def share_features(voxels: Tensor) -> Tensor:
    """Map voxels (..., d) of a layer to the logits of their shares of the layer's energy.

    Voxels hold dequantisation noise, which is positive: an empty layer has a sum, too.
    """
    return logit(voxels / voxels.sum(dim=-1, keepdim=True))
