"""How a batch of showers becomes features and context of the two stages (2302.11594 App. B)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from calo_train.families.contracts import PartInput, ShowerBatch, Stage
from calo_train.families.deposits import apply_threshold, layer_sums
from calo_train.families.l2lflows.features import layer_energy_context
from calo_train.families.l2lflows.networks import (
    build_causal_flow,
    build_energy_flow,
    previous_layers,
)
from calo_train.families.noise import add_noise
from calo_train.nn.logit import inverse_logit, logit
from calo_train.quantities import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nflows.flows import Flow

    from calo_train.families.conditions import ConditionContext
    from calo_train.families.l2lflows.family import L2LFlows
    from calo_train.geometry import Geometry
    from calo_train.showers.statistics import ShowerStatistics


@dataclass(frozen=True)
class Preparation:
    """Everything that both stages and the sampler need to know of detector and data, in MeV."""

    family: L2LFlows
    geometry: Geometry
    conditions: ConditionContext
    threshold: float
    layer_energy_unit: float
    voxel_scale: tuple[float, ...]  # M of each layer: no noisy training voxel exceeds it
    voxel_noise: float
    layer_noise: tuple[float, float]

    @classmethod
    def of(
        cls, family: L2LFlows, geometry: Geometry, statistics: ShowerStatistics, threshold: float
    ) -> Preparation:
        """Read the family's quantities and the training data's extremes."""

        def energy(key: str) -> float:
            return parse_quantity(getattr(family, key), "energy", where=f"model.{key}")

        noise = energy("voxel_noise")
        largest = statistics.voxel_max
        if family.voxel_max == "global":
            largest = (max(largest),) * geometry.num_layers
        return cls(
            family=family,
            geometry=geometry,
            conditions=family.condition_context(statistics),
            threshold=threshold,
            layer_energy_unit=family.energy_unit(statistics),
            voxel_scale=tuple(value + noise for value in largest),
            voxel_noise=noise,
            layer_noise=(energy("layer_noise_mean"), energy("layer_noise_width")),
        )

    def voxel_features(self, layer: int, voxels: Tensor) -> Tensor:
        """Map noisy voxel energies (n, d) of a layer to features."""
        return logit(voxels / self.voxel_scale[layer])

    def voxel_energies(self, layers: slice, features: Tensor) -> Tensor:
        """Undo `voxel_features` for layers of equal size, (n, layers, d); never negative."""
        return inverse_logit(features) * features.new_tensor(self.voxel_scale[layers])[:, None]

    def layer_features(self, layer_energies: Tensor) -> Tensor:
        """Map noisy layer energies (n, layers) to features."""
        return logit(layer_energies / self.layer_energy_unit)

    def layer_energies(self, features: Tensor) -> Tensor:
        """Undo `layer_features`; never negative."""
        return inverse_logit(features) * self.layer_energy_unit

    def draw_layer_energies(self, batch: ShowerBatch, random: torch.Generator) -> Tensor:
        """Threshold and sum a batch to layers (n, layers) with fresh Gaussian noise, clipped at
        zero (B.5).
        """
        mean, width = self.layer_noise
        sums = layer_sums(apply_threshold(batch.energies, self.threshold), self.geometry)
        noise = torch.randn(sums.shape, generator=random, device=sums.device, dtype=sums.dtype)
        return (sums + mean + width * noise).clamp_min(0.0)

    def layer_context(self, layer_energies: Tensor, conditions: Tensor) -> Tensor:
        """Join each layer's energy (n, layers) and the condition columns, (n, layers, columns)."""
        own = layer_energy_context(layer_energies)[..., None]
        shape = (*layer_energies.shape, conditions.shape[1])
        return torch.cat([own, conditions[:, None].expand(shape)], dim=2)

    def causal_context(
        self, layer: int, features: Callable[[int], Tensor], layer_context: Tensor
    ) -> Tensor:
        """Join previous layers' features, nearest first, and the layer's own context."""
        pieces = [features(index) for index in previous_layers(self.family, layer)]
        return torch.cat([*pieces, layer_context[:, layer]], dim=1)


class EnergyStage(Stage):
    """The energy distribution flow p(E_0 .. E_L | conditions)."""

    name: ClassVar[str] = "energy"

    def __init__(self, family: L2LFlows, preparation: Preparation) -> None:
        self.training = family.energy_training
        self.part_names = ("0",)
        self._family = family
        self._preparation = preparation

    def build_part(self, index: int) -> Flow:
        """Build the one energy flow; `index` is 0."""
        preparation = self._preparation
        return build_energy_flow(
            self._family, preparation.geometry, preparation.conditions.num_columns
        )

    def inputs(
        self, batch: ShowerBatch, parts: Sequence[int], random: torch.Generator
    ) -> Callable[[int], PartInput]:
        """Give the layer-energy features and the conditions."""
        preparation = self._preparation
        energies = preparation.draw_layer_energies(batch, random)
        context = preparation.conditions.columns(batch.conditions)
        part = PartInput(preparation.layer_features(energies), context)
        return lambda _index: part


class CausalStage(Stage):
    """One causal flow a layer, p(voxels | previous layers, layer energy, conditions)."""

    name: ClassVar[str] = "causal"

    def __init__(self, family: L2LFlows, preparation: Preparation) -> None:
        self.training = family.causal_training
        self.part_names = tuple(str(layer) for layer in range(preparation.geometry.num_layers))
        self._family = family
        self._preparation = preparation

    def build_part(self, index: int) -> Flow:
        """Build the causal flow of layer `index`."""
        preparation = self._preparation
        return build_causal_flow(
            self._family, preparation.geometry, preparation.conditions.num_columns, index
        )

    def inputs(
        self, batch: ShowerBatch, parts: Sequence[int], random: torch.Generator
    ) -> Callable[[int], PartInput]:
        """Add voxel noise once for the whole shower, so that a layer is the same voxels in every
        part: as features of its own flow and as context of the following ones.
        """
        preparation = self._preparation
        layer_context = preparation.layer_context(
            preparation.draw_layer_energies(batch, random),
            preparation.conditions.columns(batch.conditions),
        )
        noisy = add_noise(batch.energies, preparation.voxel_noise, random)
        slices = preparation.geometry.layer_slices

        @cache
        def features(layer: int) -> Tensor:
            return preparation.voxel_features(layer, noisy[:, slices[layer]])

        def part_input(layer: int) -> PartInput:
            context = preparation.causal_context(layer, features, layer_context)
            return PartInput(features(layer), context)

        return part_input
