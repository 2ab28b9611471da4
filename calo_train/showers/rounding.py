"""Undo the comb of stored rounding for training.

Files whose energies were rounded to b bits of mantissa have all mass on a comb of values; a
continuous density that sees it diverges on the teeth. Uniform noise over the interval that rounds
to the stored value takes the comb away. Never used when evaluating.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EXPONENT_BITS = 0x7F800000  # of an IEEE 754 float32


def undo_rounding(energies: Tensor, mantissa_bits: Tensor, uniform: Tensor) -> Tensor:
    """Spread each energy (n, voxels), float32, over the interval that rounds to it; zeros stay.

    mantissa_bits (n,) counts the bits after the leading one, 0 for rows that were not rounded;
    uniform (n, voxels) lies in [0, 1). A value in [2^k, 2^(k+1)) has its last place at 2^(k-b).
    Below a power of two the places are half as wide, so 2^k itself stands for
    [-1/4, 1/2) of its last place and any other value for [-1/2, 1/2).
    """
    power = (energies.view(torch.int32) & _EXPONENT_BITS).view(torch.float32)  # 2^k, 0 for 0
    bits = mantissa_bits[:, None]
    last_place = power * torch.exp2(-bits.to(energies.dtype))
    below = torch.where(energies.abs() == power, 0.25, 0.5)
    shift = energies.sign() * (uniform * (below + 0.5) - below) * last_place
    return torch.where(bits > 0, energies + shift, energies)
