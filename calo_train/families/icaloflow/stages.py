"""How a batch of showers becomes features and context of the three flows (2305.11934 Sec. 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from calo_train.families.contracts import PartInput, ShowerBatch, Stage
from calo_train.families.icaloflow.features import share_features
from calo_train.families.icaloflow.networks import (
    build_energy_flow,
    build_first_layer_flow,
    build_next_layers_flow,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nflows.flows import Flow
    from torch import Tensor

    from calo_train.families.icaloflow.family import ICaloFlow
    from calo_train.families.icaloflow.preparation import Preparation


class EnergyStage(Stage):
    """Flow-1, p(E_0 .. E_L | conditions)."""

    name: ClassVar[str] = "energy"

    def __init__(self, family: ICaloFlow, preparation: Preparation) -> None:
        self.training = family.energy_training
        self.part_names = ("0",)
        self._family = family
        self._preparation = preparation

    def build_part(self, index: int) -> Flow:
        """Build the one flow."""
        preparation = self._preparation
        return build_energy_flow(
            self._family, preparation.geometry, preparation.conditions.num_columns
        )

    def inputs(
        self,
        batch: ShowerBatch,
        parts: Sequence[int],
        random: torch.Generator,
    ) -> Callable[[int], PartInput]:
        """Give the layer-energy features and the conditions."""
        preparation = self._preparation
        features = preparation.noisy_layer_features(preparation.layers(batch.energies), random)
        part = PartInput(features, preparation.conditions.columns(batch.conditions))
        return lambda _index: part


class FirstLayerStage(Stage):
    """Flow-2, p(voxels of layer 0 | conditions, E_0)."""

    name: ClassVar[str] = "first_layer"

    def __init__(self, family: ICaloFlow, preparation: Preparation) -> None:
        self.training = family.first_layer_training
        self.part_names = ("0",)
        self._family = family
        self._preparation = preparation

    def build_part(self, index: int) -> Flow:
        """Build the one flow."""
        preparation = self._preparation
        return build_first_layer_flow(
            self._family, preparation.geometry, preparation.conditions.num_columns
        )

    def inputs(
        self,
        batch: ShowerBatch,
        parts: Sequence[int],
        random: torch.Generator,
    ) -> Callable[[int], PartInput]:
        """Give the shares of layer 0, with a noise on its energy of its own."""
        preparation = self._preparation
        first = preparation.layers(batch.energies[:, : preparation.num_voxels])
        part = PartInput(
            share_features(preparation.add_voxel_noise(first[:, 0], random)),
            preparation.first_context(
                preparation.conditions.columns(batch.conditions),
                preparation.noisy_layer_features(first, random),
            ),
        )
        return lambda _index: part


class NextLayersStage(Stage):
    """Flow-3, p(voxels of layer k | layer k-1, E_k, E_(k-1), k, conditions), one for all k."""

    name: ClassVar[str] = "next_layers"

    def __init__(self, family: ICaloFlow, preparation: Preparation) -> None:
        self.training = family.next_layers_training
        self.part_names = ("0",)
        self._family = family
        self._preparation = preparation
        num_next = preparation.num_layers - 1
        self.rows_per_shower = min(family.layers_per_shower or num_next, num_next)

    def build_part(self, index: int) -> Flow:
        """Build the one flow."""
        preparation = self._preparation
        return build_next_layers_flow(
            self._family, preparation.geometry, preparation.conditions.num_columns
        )

    def inputs(
        self,
        batch: ShowerBatch,
        parts: Sequence[int],
        random: torch.Generator,
    ) -> Callable[[int], PartInput]:
        """Give rows of a few layers of each shower, drawn anew for every batch."""
        preparation = self._preparation
        layers = preparation.layers(batch.energies)
        chosen = self._choose_layers(layers, random)
        own, previous = (
            share_features(preparation.add_voxel_noise(_layers_at(layers, where), random))
            for where in (chosen, chosen - 1)
        )
        context = preparation.next_context(
            preparation.conditions.columns(batch.conditions),
            preparation.noisy_layer_features(layers, random),
            previous,
            chosen,
        )
        part = PartInput(own.flatten(0, 1), context.flatten(0, 1), self.rows_per_shower)
        return lambda _index: part

    def _choose_layers(self, layers: Tensor, random: torch.Generator) -> Tensor:
        """Draw different layers from 1 on for each shower, all equally likely, (n, m)."""
        size = (len(layers), self._preparation.num_layers - 1)
        keys = torch.rand(size, generator=random, device=layers.device)
        return keys.argsort(dim=1)[:, : self.rows_per_shower] + 1


def _layers_at(layers: Tensor, chosen: Tensor) -> Tensor:
    """Take layers (n, m, d) at (n, m) out of (n, layers, d)."""
    showers = torch.arange(len(layers), device=layers.device)[:, None]
    return layers[showers, chosen]
