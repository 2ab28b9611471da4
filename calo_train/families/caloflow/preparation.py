"""What the stages and the samplers of CaloFlow know of detector and data (2106.05285 Sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calo_train.families.caloflow.features import (
    energy_shares,
    layer_energies_of,
    layer_energy_context,
    voxel_shares,
)
from calo_train.families.conditions import INCIDENT_ENERGY, ConditionContext
from calo_train.families.deposits import apply_threshold, layer_sums
from calo_train.nn.logit import inverse_logit, logit
from calo_train.quantities import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calo_train.families.caloflow.family import CaloFlow
    from calo_train.geometry import Geometry
    from calo_train.showers.statistics import ShowerStatistics


@dataclass(frozen=True)
class Preparation:
    """Units and scales in MeV, and the maps between energies and features of both flows.

    A layer of one voxel has nothing to share: it carries its layer energy and is no feature of the
    voxel flow, where its share, always 1, would have an infinite density.
    """

    geometry: Geometry
    conditions: ConditionContext
    visible_scale: float  # largest visible over incident energy
    layer_unit: float
    energy_noise: float
    voxel_noise: float
    voxel_cut: float
    groups: tuple[int, ...]  # voxels of each layer that has several
    shared: tuple[int, ...]  # these voxels, in order

    @classmethod
    def of(
        cls, family: CaloFlow, geometry: Geometry, statistics: ShowerStatistics, threshold: float
    ) -> Preparation:
        """Read the family's quantities and the training data's extremes."""

        def energy(key: str) -> float:
            return parse_quantity(getattr(family, key), "energy", where=f"model.{key}")

        scale = partial(_logarithm, unit=family.incident_unit(statistics))
        slices = [s for s in geometry.layer_slices if s.stop - s.start > 1]
        return cls(
            geometry=geometry,
            conditions=ConditionContext(statistics.condition_range, scale),
            visible_scale=family.visible_scale(geometry, statistics),
            layer_unit=family.layer_unit(statistics),
            energy_noise=energy("energy_flow_noise"),
            voxel_noise=energy("voxel_flow_noise"),
            voxel_cut=threshold if family.voxel_cut == "auto" else energy("voxel_cut"),
            groups=tuple(s.stop - s.start for s in slices),
            shared=tuple(voxel for s in slices for voxel in range(s.start, s.stop)),
        )

    @property
    def num_context(self) -> int:
        """Context columns of the voxel flow."""
        return self.conditions.num_columns + self.geometry.num_layers

    def energy_features(self, layer_energies: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """Map layer energies (n, layers) to features of the energy flow."""
        return logit(energy_shares(layer_energies, self._largest_visible(conditions)))

    def layer_energies(self, features: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """Undo `energy_features`; never negative."""
        return layer_energies_of(inverse_logit(features), self._largest_visible(conditions))

    def voxel_features(self, voxels: Tensor, layer_energies: Tensor) -> Tensor:
        """Map noisy voxels (n, voxels) and their sums to features (n, D) of the voxel flow."""
        shares = voxel_shares(voxels, layer_energies, self._layer_of_voxel(voxels.device))
        return logit(shares[:, self._shared(voxels.device)])

    def voxel_energies(self, features: Tensor, layer_energies: Tensor) -> Tensor:
        """Give energies (n, voxels) whose layers have these sums, before the cut of dim voxels.

        The cut takes energy away and is not made up for (2106.05285; released code).
        """
        device = features.device
        shares = features.new_ones(len(features), self.geometry.num_voxels)
        shares[:, self._shared(device)] = inverse_logit(features)
        layer_of_voxel = self._layer_of_voxel(device)
        shares = voxel_shares(shares, layer_sums(shares, self.geometry), layer_of_voxel)
        voxels = shares * layer_energies.index_select(1, layer_of_voxel)
        return apply_threshold(voxels, self.voxel_cut)

    def voxel_context(self, layer_energies: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """Join the conditions and the layer energies, (n, conditions + layers)."""
        own = layer_energy_context(layer_energies, self.layer_unit)
        return torch.cat([self.conditions.columns(conditions), own], dim=1)

    def _largest_visible(self, conditions: Mapping[str, Tensor]) -> Tensor:
        return self.visible_scale * conditions[INCIDENT_ENERGY]

    def _layer_of_voxel(self, device: torch.device) -> Tensor:
        return torch.as_tensor(self.geometry.layer_of_voxel, device=device)

    def _shared(self, device: torch.device) -> Tensor:
        return torch.tensor(self.shared, dtype=torch.int64, device=device)


def _logarithm(energy: Tensor, *, unit: float) -> Tensor:
    return torch.log10(energy / unit)
