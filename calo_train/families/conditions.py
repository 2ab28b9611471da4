"""Conditions as context columns of a flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INCIDENT_ENERGY = "incident_energy"


@dataclass(frozen=True)
class ConditionContext:
    """Conditions as context columns, the incident energy last.

    The incident energy enters by `scale_incident_energy`, MeV to the paper's column; any further
    condition is scaled to [-1, 1] over its trained domain `ranges`.
    """

    ranges: Mapping[str, tuple[float, float]]
    scale_incident_energy: Callable[[Tensor], Tensor]

    @property
    def num_columns(self) -> int:
        return len(self.ranges)

    def columns(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """Give the context (n, columns) of conditions name -> (n,)."""
        others = [
            self._scaled(name, conditions[name]) for name in self.ranges if name != INCIDENT_ENERGY
        ]
        incident = self.scale_incident_energy(conditions[INCIDENT_ENERGY])
        return torch.stack([*others, incident], dim=1)

    def _scaled(self, name: str, values: Tensor) -> Tensor:
        low, high = self.ranges[name]
        return 2 * (values - low) / (high - low) - 1 if high > low else torch.zeros_like(values)
