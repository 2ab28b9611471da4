"""The logit that keeps shares of [0, 1] finite, and its inverse.

u = alpha + (1 - 2 alpha) share, logit = ln(u / (1 - u)); alpha = 1e-6 in every flow of the field
(CaloFlow 2106.05285, L2LFlows 2302.11594 App. B, iCaloFlow 2305.11934, SuperCalo 2308.11700).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ALPHA = 1e-6
LOGIT_END = -math.log(ALPHA)  # 13.8155, the logit of 1 up to rounding


def logit(share: Tensor) -> Tensor:
    """Map shares, clipped to [0, 1], to [-13.8, 13.8]."""
    inner = ALPHA + (1 - 2 * ALPHA) * share.clamp(0.0, 1.0)
    return torch.log(inner) - torch.log1p(-inner)


def inverse_logit(features: Tensor) -> Tensor:
    """Undo `logit`; beyond its range the share is clipped to [0, 1]."""
    return ((torch.sigmoid(features) - ALPHA) / (1 - 2 * ALPHA)).clamp(0.0, 1.0)


def count_clipped(features: Tensor) -> Tensor:
    """Count features (n, ...) beyond the logit of a share in [0, 1] in each row, (n,)."""
    return (features.abs() > LOGIT_END).flatten(1).sum(dim=1, dtype=torch.int32)
