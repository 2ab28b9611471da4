"""How a batch of showers becomes features and context of the three stages (2308.11700)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from calo_train.families.contracts import PartInput, ShowerBatch, Stage
from calo_train.families.deposits import layer_sums
from calo_train.families.noise import positive_uniform
from calo_train.families.supercalo.features import (
    coarse_features,
    coarse_layer_context,
)
from calo_train.families.supercalo.networks import (
    build_coarse_flow,
    build_energy_flow,
    build_upsampling_flow,
)
from calo_train.nn.logit import logit
from calo_train.quantities import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nflows.flows import Flow

    from calo_train.families.conditions import ConditionContext
    from calo_train.families.supercalo.coarse_grid import CoarseGrid
    from calo_train.families.supercalo.family import SuperCalo
    from calo_train.geometry import Geometry
    from calo_train.showers.statistics import ShowerStatistics


@dataclass(frozen=True)
class Surroundings:
    """What the super-resolution flow is told of n showers, MeV.

    conditions (n, C) context columns; layer_energies (n, layers) without noise; own (n, coarse)
    with the noise of the fine voxels or of the chain; around (n, coarse), as neighbours see it.
    """

    conditions: Tensor
    layer_energies: Tensor
    own: Tensor
    around: Tensor


class Preparation:
    """Everything that the stages and the samplers need to know of detector and data, in MeV."""

    def __init__(
        self, family: SuperCalo, geometry: Geometry, statistics: ShowerStatistics, threshold: float
    ) -> None:
        def energy(key: str) -> float:
            return parse_quantity(getattr(family, key), "energy", where=f"model.{key}")

        self.family = family
        self.grid: CoarseGrid = family.grid(geometry)
        self.conditions: ConditionContext = family.condition_context(statistics)
        self.threshold = threshold
        self.layer_energy_unit = family.layer_unit(statistics)
        self.coarse_energy_unit = family.coarse_unit(statistics)
        self.layer_noise = energy("layer_noise")
        self.coarse_noise = energy("coarse_noise")
        self.fine_noise = energy("fine_noise")
        self.neighbour_noise = energy("neighbour_noise")
        # Energies that the noise of training reaches cannot be told from none.
        self.layer_cut = max(threshold, self.layer_noise)
        self.coarse_cut = max(threshold, self.coarse_noise)
        self.fine_cut = max(threshold, self.fine_noise)
        self._voxels = torch.from_numpy(self.grid.voxels)
        self._neighbours = torch.from_numpy(self.grid.neighbours)
        self._position = torch.from_numpy(self.grid.position)
        self._places = torch.argsort(self._voxels.flatten())

    def grouped(self, energies: Tensor) -> Tensor:
        """Sort voxels (n, voxels) by coarse voxel, (n, coarse, fine in one)."""
        order = self._voxels.to(energies.device).flatten()
        return energies.index_select(1, order).view(-1, *self._voxels.shape)

    def ungrouped(self, grouped: Tensor) -> Tensor:
        """Undo `grouped`."""
        return grouped.flatten(1).index_select(1, self._places.to(grouped.device))

    def by_coarse_layer(self, values: Tensor) -> Tensor:
        """Sort coarse voxels or layers (n, k) by coarse layer, (n, coarse layers, each)."""
        return values.reshape(len(values), self.grid.num_layers, -1)

    def coarse_context(self, conditions: Tensor, coarse_layers: Tensor) -> Tensor:
        """Join condition columns and noisy coarse-layer energies (n, coarse layers)."""
        return torch.cat([conditions, coarse_layer_context(coarse_layers)], dim=1)

    def upsampling_context(self, given: Surroundings, showers: Tensor, coarse: Tensor) -> Tensor:
        """Give the context (rows, width) of coarse voxels `coarse` of showers `showers`, (rows,).

        In order: conditions, the spanned layers, the coarse voxel, its neighbours, its place.
        """
        grid, device = self.grid, given.own.device
        layers = logit(given.layer_energies / self.layer_energy_unit)
        layers = layers.view(-1, grid.layers_joined)
        per_layer = grid.num_voxels // grid.num_layers
        own = logit(given.own / self.coarse_energy_unit)
        # What is missing beyond an edge is a coarse voxel without energy.
        around = torch.nn.functional.pad(given.around, (0, 1)) / self.coarse_energy_unit
        around = logit(around).flatten()
        neighbours = self._neighbours.to(device)[coarse]
        beside = (showers * (grid.num_voxels + 1))[:, None] + neighbours
        return torch.cat(
            [
                given.conditions[showers],
                layers[showers * grid.num_layers + coarse // per_layer],
                own[showers, coarse][:, None],
                around[beside.flatten()].view(beside.shape),
                self._position.to(device, own.dtype)[coarse],
            ],
            dim=1,
        )


class EnergyStage(Stage):
    """Flow-1: p(layer energies | conditions), as in iCaloFlow (2305.11934)."""

    name: ClassVar[str] = "energy"

    def __init__(self, preparation: Preparation) -> None:
        self.training = preparation.family.energy_training
        self.part_names = ("0",)
        self._preparation = preparation

    def build_part(self, index: int) -> Flow:
        """Build the one flow; `index` is 0."""
        own = self._preparation
        return build_energy_flow(own.family, own.grid, own.conditions.num_columns)

    def inputs(
        self, batch: ShowerBatch, parts: Sequence[int], random: torch.Generator
    ) -> Callable[[int], PartInput]:
        """Give the logits of layer energies with one fresh noise value a layer."""
        own = self._preparation
        sums = layer_sums(batch.energies, own.grid.fine)
        noisy = sums + own.layer_noise * positive_uniform(sums, random)
        context = own.conditions.columns(batch.conditions)
        part = PartInput(logit(noisy / own.layer_energy_unit), context)
        return lambda _index: part


class CoarseStage(Stage):
    """Flow-2: p(coarse voxels | conditions, energies of the coarse layers)."""

    name: ClassVar[str] = "coarse"

    def __init__(self, preparation: Preparation) -> None:
        self.training = preparation.family.coarse_training
        self.part_names = ("0",)
        self._preparation = preparation

    def build_part(self, index: int) -> Flow:
        """Build the one flow; `index` is 0."""
        own = self._preparation
        return build_coarse_flow(own.family, own.grid, own.conditions.num_columns)

    def inputs(
        self, batch: ShowerBatch, parts: Sequence[int], random: torch.Generator
    ) -> Callable[[int], PartInput]:
        """Give the logarithms of coarse voxels with fresh noise, and the sums of those."""
        own = self._preparation
        coarse = own.grouped(batch.energies).sum(dim=2)
        noisy = coarse + own.coarse_noise * positive_uniform(coarse, random)
        columns = own.conditions.columns(batch.conditions)
        context = own.coarse_context(columns, own.by_coarse_layer(noisy).sum(dim=2))
        part = PartInput(coarse_features(noisy, own.coarse_energy_unit), context)
        return lambda _index: part


class UpsamplingStage(Stage):
    """The super-resolution flow: p(fine shares in a coarse voxel | its surroundings)."""

    name: ClassVar[str] = "upsampling"

    def __init__(self, preparation: Preparation) -> None:
        self.training = preparation.family.upsampling_training
        self.part_names = ("0",)
        self._preparation = preparation

    def build_part(self, index: int) -> Flow:
        """Build the one flow; `index` is 0."""
        own = self._preparation
        return build_upsampling_flow(own.family, own.grid, own.conditions.num_columns)

    def inputs(
        self, batch: ShowerBatch, parts: Sequence[int], random: torch.Generator
    ) -> Callable[[int], PartInput]:
        """Give shares and surroundings of the coarse voxels of a shower, or of some of them."""
        own = self._preparation
        fine = own.grouped(batch.energies)
        around = fine.sum(dim=2)
        showers, coarse = self._chosen(around, random)
        noisy = fine + own.fine_noise * positive_uniform(fine, random)
        given = Surroundings(
            conditions=own.conditions.columns(batch.conditions),
            layer_energies=layer_sums(batch.energies, own.grid.fine),
            own=noisy.sum(dim=2),
            around=around,
        )
        chosen = noisy[showers, coarse]
        features = logit(chosen / chosen.sum(dim=1, keepdim=True))
        context = own.upsampling_context(given, showers, coarse)
        part = PartInput(features, context, rows_per_shower=len(coarse) // len(batch))
        return lambda _index: part

    def _chosen(self, energies: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Choose coarse voxels (n, coarse) at random, those with energy first; their numbers.

        Empty ones are never drawn, so that a subset is better spent on the others.
        """
        num_showers, num_coarse = energies.shape
        wanted = self._preparation.family.voxels_per_shower
        count = min(wanted or num_coarse, num_coarse)
        showers = torch.arange(num_showers, device=energies.device).repeat_interleave(count)
        if count == num_coarse:
            return showers, torch.arange(num_coarse, device=energies.device).repeat(num_showers)
        order = torch.rand(energies.shape, generator=random, device=energies.device)
        order += energies > 0
        return showers, order.topk(count, dim=1).indices.flatten()
