"""Uniform noise of the flow papers: on energies in training, and from base noise in drawing."""

from __future__ import annotations

import torch
from torch import Tensor


def add_noise(energies: Tensor, width: float, random: torch.Generator) -> Tensor:
    """Add fresh uniform noise of 0 to `width` MeV to each of the energies."""
    noise = torch.rand(
        energies.shape, generator=random, device=energies.device, dtype=energies.dtype
    )
    return energies + width * noise


def positive_uniform(like: Tensor, random: torch.Generator) -> Tensor:
    """Draw uniform numbers in (0, 1]: zeros they are added to have a logarithm and a sum."""
    return 1 - torch.rand(like.shape, generator=random, device=like.device, dtype=like.dtype)


def uniform_of_normals(normals: Tensor) -> Tensor:
    """Map standard normal numbers to uniform ones by their distribution function."""
    uniform: Tensor = torch.special.ndtr(normals)
    return uniform
