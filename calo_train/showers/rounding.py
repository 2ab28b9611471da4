"""Undo the comb of stored rounding for training.

Files whose energies were rounded to b bits of mantissa have all mass on a comb of values; a
continuous density that sees it diverges on the teeth. Uniform noise of one unit in that last place
restores the interval that each stored value stands for. Never used when evaluating.
"""

from __future__ import annotations

import torch
from torch import Tensor


def undo_rounding(energies: Tensor, mantissa_bits: Tensor, uniform: Tensor) -> Tensor:
    """Spread each energy (n, voxels) over the interval that rounds to it.

    mantissa_bits (n,) is 0 for rows that were not rounded; uniform (n, voxels) lies in [0, 1).
    A value m 2^e with 1/2 <= |m| < 1 and b bits after the leading one has its last place at
    2^(e - 1 - b). Zeros stay zeros.
    """
    exponent = torch.frexp(energies).exponent
    last_place = torch.ldexp(torch.ones_like(energies), exponent - 1 - mantissa_bits[:, None])
    is_rounded = (mantissa_bits[:, None] > 0) & (energies != 0)
    return torch.where(is_rounded, energies + (uniform - 0.5) * last_place, energies)
