"""Deposits to features and context of the flows, and back (2305.11934 Sec. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calo_train.families.deposits import apply_threshold
from calo_train.families.icaloflow.networks import voxels_of_layer
from calo_train.families.noise import positive_uniform
from calo_train.nn.logit import inverse_logit, logit
from calo_train.quantities import parse_quantity

if TYPE_CHECKING:
    from calo_train.families.conditions import ConditionContext
    from calo_train.families.icaloflow.family import ICaloFlow
    from calo_train.geometry import Geometry
    from calo_train.showers.statistics import ShowerStatistics

_FIRST_LAYER_SCALE = (
    0.25  # of the layer energy in the context of layer 0 alone (inductive-caloflow)
)


@dataclass(frozen=True)
class Preparation:
    """What stages and sampler need to know of detector and data; energies in MeV."""

    geometry: Geometry
    conditions: ConditionContext
    threshold: float  # of the readout: deposits below it are not trained on
    output_threshold: float  # deposits below it are not drawn
    layer_energy_unit: float
    voxel_noise: float  # uniform from 0 to this
    layer_noise: float

    @classmethod
    def of(
        cls, family: ICaloFlow, geometry: Geometry, statistics: ShowerStatistics, threshold: float
    ) -> Preparation:
        """Read the family's quantities and the training data's largest layer energy."""

        def energy(key: str) -> float:
            return parse_quantity(getattr(family, key), "energy", where=f"model.{key}")

        follows_data = family.output_threshold is None
        return cls(
            geometry=geometry,
            conditions=family.condition_context(statistics),
            threshold=threshold,
            output_threshold=threshold if follows_data else energy("output_threshold"),
            layer_energy_unit=family.layer_energy_unit_of(statistics),
            voxel_noise=energy("voxel_noise"),
            layer_noise=energy("layer_noise"),
        )

    @property
    def num_layers(self) -> int:
        return self.geometry.num_layers

    @property
    def num_voxels(self) -> int:
        """Voxels of one layer."""
        return voxels_of_layer(self.geometry)

    @property
    def has_next_layers(self) -> bool:
        """Whether layers follow the first, with voxels to share their energies."""
        return self.num_voxels > 1 and self.num_layers > 1

    def layers(self, energies: Tensor) -> Tensor:
        """Give what the readout sees of m whole layers, (n, m d) to (n, m, d)."""
        seen = apply_threshold(energies, self.threshold)
        return seen.view(len(energies), -1, self.num_voxels)

    def noisy_layer_features(self, layers: Tensor, random: torch.Generator) -> Tensor:
        """Give the features (n, layers) of the sums of layers (n, layers, d), one noise each."""
        sums = layers.sum(dim=2)
        noise = positive_uniform(sums, random)
        return self.layer_features(sums + self.layer_noise * noise)

    def add_voxel_noise(self, voxels: Tensor, random: torch.Generator) -> Tensor:
        """Add fresh noise to every voxel."""
        return voxels + self.voxel_noise * positive_uniform(voxels, random)

    def layer_features(self, layer_energies: Tensor) -> Tensor:
        """Map layer energies to features, lambda(E) of the paper's code."""
        return logit(layer_energies / self.layer_energy_unit)

    def layer_energies(self, features: Tensor) -> Tensor:
        """Undo `layer_features`; what stays below the output threshold is zero."""
        return self.cut(inverse_logit(features) * self.layer_energy_unit)

    def cut(self, energies: Tensor) -> Tensor:
        """Set what is not drawn to zero."""
        return apply_threshold(energies, self.output_threshold)

    def first_context(self, columns: Tensor, layer_features: Tensor) -> Tensor:
        """Join conditions (n, C) and the energy feature of layer 0, (n, C + 1)."""
        return torch.cat([columns, _FIRST_LAYER_SCALE * layer_features[:, :1]], dim=1)

    def next_context(
        self, columns: Tensor, layer_features: Tensor, previous: Tensor, layers: Tensor
    ) -> Tensor:
        """Join the context of rows of layers from 1 on, (n, m, C + 2 + d + layers - 1).

        Conditions (n, C), energy features (n, all layers), features of the previous layer
        (n, m, d), which layer a row is (n, m). Last comes the layer before, one-hot.
        """
        before = layers - 1
        pieces = [
            columns[:, None].expand(*layers.shape, columns.shape[1]),
            layer_features.gather(1, layers)[..., None],
            layer_features.gather(1, before)[..., None],
            previous,
            torch.eye(self.num_layers - 1, dtype=columns.dtype, device=columns.device)[before],
        ]
        return torch.cat(pieces, dim=2)
