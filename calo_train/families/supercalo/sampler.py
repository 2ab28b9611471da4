"""Drawing showers: layer energies, coarse voxels, then all coarse voxels refined at once.

Uniform noise of the published chain comes from the caller's normal numbers by their distribution
function, so that a shower depends on its own numbers alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calo_train.families.contracts import CoarseTile, DrawnTile, Refiner, Sampler
from calo_train.families.deposits import apply_threshold
from calo_train.families.noise import uniform_of_normals
from calo_train.families.supercalo.features import (
    coarse_energies,
    scaled_to_sums,
    share_energy,
)
from calo_train.families.supercalo.networks import (
    build_coarse_flow,
    build_energy_flow,
    build_upsampling_flow,
)
from calo_train.families.supercalo.stages import Surroundings
from calo_train.nn.logit import LOGIT_END, inverse_logit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calo_train.families.place import Place
    from calo_train.families.supercalo.stages import Preparation

_BLOCK = 1 << 14  # coarse voxels whose context is built and whose shares are taken together


class ChainSampler(Sampler):
    """The full chain: Flow-1, Flow-2, super-resolution; nothing is renormalised after a cut."""

    def __init__(
        self, preparation: Preparation, parts: Mapping[str, Mapping[str, Tensor]], place: Place
    ) -> None:
        grid = preparation.grid
        num_conditions = preparation.conditions.num_columns
        self.tile = preparation.family.tile
        self._layer_energies = _LayerEnergies(preparation, parts, place)
        self._upsampling = _Upsampling(preparation, parts, place)
        self._sizes = [
            grid.fine.num_layers,
            grid.num_layers,
            grid.num_voxels,
            self._upsampling.num_normals,
        ]
        self.num_normals = sum(self._sizes)
        self._preparation = preparation
        self._place = place
        flow = build_coarse_flow(preparation.family, grid, num_conditions)
        self._flow = place.pack(flow, parts["coarse/0"])

    @torch.inference_mode()
    def draw(self, normals: Tensor, conditions: Mapping[str, Tensor]) -> DrawnTile:
        """Draw a tile; repairs count fine voxels whose share left its range and was clipped."""
        columns = self._preparation.conditions.columns(self._place.take_all(conditions))
        of_layers, of_sums, of_coarse, of_fine = torch.split(normals, self._sizes, dim=1)
        layer_energies = self._layer_energies.draw(of_layers, columns)
        coarse = self._coarse(self._place.take(of_coarse), columns, layer_energies, of_sums)
        return self._upsampling.draw(of_fine, columns, layer_energies, coarse)

    def _coarse(
        self, base: Tensor, columns: Tensor, layer_energies: Tensor, of_sums: Tensor
    ) -> Tensor:
        """Draw coarse voxels (n, coarse) given the sums of layers, with noise as in training.

        There a sum holds the noise of all coarse voxels of its layer; the published chain adds
        uniform noise of the same largest value.
        """
        own = self._preparation
        largest = own.coarse_noise * own.grid.num_voxels / own.grid.num_layers
        sums = own.by_coarse_layer(layer_energies).sum(dim=2)
        noisy = sums + largest * uniform_of_normals(self._place.take(of_sums))
        features = self._flow.inverse(base, own.coarse_context(columns, noisy))
        return apply_threshold(coarse_energies(features, own.coarse_energy_unit), own.coarse_cut)


class CoarseRefiner(Refiner):
    """Super-resolution of coarse showers from elsewhere.

    The flow is told the energies of the fine layers. Where they are not known, Flow-1 draws them
    for the incident energy and they are scaled to the coarse layers' energies.
    """

    def __init__(
        self, preparation: Preparation, parts: Mapping[str, Mapping[str, Tensor]], place: Place
    ) -> None:
        self.tile = preparation.family.tile
        self._layer_energies = _LayerEnergies(preparation, parts, place)
        self._upsampling = _Upsampling(preparation, parts, place)
        self._sizes = [preparation.grid.fine.num_layers, self._upsampling.num_normals]
        self.num_normals = sum(self._sizes)
        self._preparation = preparation
        self._place = place

    @torch.inference_mode()
    def refine(
        self, normals: Tensor, conditions: Mapping[str, Tensor], coarse: CoarseTile
    ) -> DrawnTile:
        """Draw fine showers; coarse voxels below the threshold give none."""
        own, place = self._preparation, self._place
        columns = own.conditions.columns(place.take_all(conditions))
        of_layers, of_fine = torch.split(normals, self._sizes, dim=1)
        energies = place.take(coarse.energies)
        if coarse.layer_energies is not None:
            layer_energies = place.take(coarse.layer_energies)
        else:
            drawn = self._layer_energies.draw(of_layers, columns)
            parts = own.by_coarse_layer(drawn)
            layer_energies = scaled_to_sums(
                parts, own.by_coarse_layer(energies).sum(dim=2)
            ).flatten(1)
        kept = apply_threshold(energies, own.threshold)
        return self._upsampling.draw(of_fine, columns, layer_energies, kept)


class _LayerEnergies:
    """Flow-1, packed."""

    def __init__(
        self, preparation: Preparation, parts: Mapping[str, Mapping[str, Tensor]], place: Place
    ) -> None:
        self._preparation = preparation
        self._place = place
        num_conditions = preparation.conditions.num_columns
        flow = build_energy_flow(preparation.family, preparation.grid, num_conditions)
        self._flow = place.pack(flow, parts["energy/0"])

    def draw(self, normals: Tensor, columns: Tensor) -> Tensor:
        """Draw layer energies (n, layers), cut."""
        own = self._preparation
        features = self._flow.inverse(self._place.take(normals), columns)
        return apply_threshold(inverse_logit(features) * own.layer_energy_unit, own.layer_cut)


class _Upsampling:
    """The super-resolution flow, packed; takes one number a coarse and one a fine voxel."""

    def __init__(
        self, preparation: Preparation, parts: Mapping[str, Mapping[str, Tensor]], place: Place
    ) -> None:
        self._preparation = preparation
        self._place = place
        grid, num_conditions = preparation.grid, preparation.conditions.num_columns
        self.num_normals = grid.num_voxels + grid.fine.num_voxels
        flow = build_upsampling_flow(preparation.family, grid, num_conditions)
        self._flow = place.pack(flow, parts["upsampling/0"])

    def draw(
        self, normals: Tensor, columns: Tensor, layer_energies: Tensor, coarse: Tensor
    ) -> DrawnTile:
        """Refine coarse voxels (n, coarse); those without energy are left out and give zeros."""
        own, grid = self._preparation, self._preparation.grid
        sizes = [grid.num_voxels, grid.fine.num_voxels]
        of_coarse, of_fine = torch.split(normals, sizes, dim=1)
        uniform = uniform_of_normals(self._place.take(of_coarse))
        given = Surroundings(
            conditions=columns,
            layer_energies=layer_energies,
            own=coarse + own.coarse_noise * uniform,
            around=coarse + own.neighbour_noise * uniform,
        )
        base = self._place.take(of_fine).reshape(-1, grid.num_voxels, grid.num_fine)
        showers, voxels = (coarse != 0).nonzero(as_tuple=True)  # NaN is kept, to be seen
        fine = torch.zeros(base.shape, dtype=torch.float32, device=self._place.device)
        num_clipped = torch.zeros(len(coarse), dtype=torch.int64, device=self._place.device)
        for rows in zip(torch.split(showers, _BLOCK), torch.split(voxels, _BLOCK), strict=True):
            context = own.upsampling_context(given, *rows)
            features = self._flow.inverse(base[rows], context)
            energies = apply_threshold(share_energy(features, given.own[rows]), own.fine_cut)
            fine[rows] = energies.to(torch.float32)
            is_clipped = (features.abs() > LOGIT_END).sum(dim=1)
            num_clipped.index_add_(0, rows[0], is_clipped)
        return DrawnTile(own.ungrouped(fine), {"voxels_clipped": num_clipped})
