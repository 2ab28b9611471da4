"""Drawing showers: energy flow, then layer by layer, then renormalise-and-cut (App. B.3)."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calo_train.families.contracts import DrawnTile, Sampler
from calo_train.families.l2lflows.features import renormalise_and_cut
from calo_train.families.l2lflows.networks import build_causal_flow, build_energy_flow
from calo_train.families.place import Place
from calo_train.nn.logit import count_clipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from calo_train.families.l2lflows.family import L2LFlows
    from calo_train.families.l2lflows.stages import Preparation
    from calo_train.geometry import Geometry


class L2LFlowsSampler(Sampler):
    """Trained flows, packed for the exact incremental inverse.

    A causal flow is conditioned on the raw transformed voxels of the layers before it: no
    inversion, cut or fresh noise in between (ConvL2LFlow generator.py).
    """

    def __init__(
        self,
        family: L2LFlows,
        preparation: Preparation,
        parts: Mapping[str, Mapping[str, Tensor]],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        geometry, num_conditions = preparation.geometry, preparation.conditions.num_columns
        self.tile = family.tile
        self.num_normals = geometry.num_layers + geometry.num_voxels
        self._preparation = preparation
        self._place = Place(dtype, device)
        energy_flow = build_energy_flow(family, geometry, num_conditions)
        self._energy_flow = self._place.pack(energy_flow, parts["energy/0"])
        self._causal_flows = [
            self._place.pack(
                build_causal_flow(family, geometry, num_conditions, layer),
                parts[f"causal/{layer}"],
            )
            for layer in range(geometry.num_layers)
        ]

    @torch.inference_mode()
    def draw(self, normals: Tensor, conditions: Mapping[str, Tensor]) -> DrawnTile:
        """Draw a tile; repairs count voxels that left the flows' range and were clipped."""
        preparation = self._preparation
        base = self._place.take(normals)
        columns = preparation.conditions.columns(self._place.take_all(conditions))
        num_layers = preparation.geometry.num_layers
        layer_features = self._energy_flow.inverse(base[:, :num_layers], columns)
        layer_energies = preparation.layer_energies(layer_features)
        layer_context = preparation.layer_context(layer_energies, columns)
        voxel_base = base[:, num_layers:]
        features: list[Tensor] = []
        for layer, piece in enumerate(preparation.geometry.layer_slices):
            context = preparation.causal_context(layer, features.__getitem__, layer_context)
            features.append(self._causal_flows[layer].inverse(voxel_base[:, piece], context))
        return self._finished(features, layer_energies)

    def _finished(self, features: list[Tensor], layer_energies: Tensor) -> DrawnTile:
        """Turn features (n, d) of each layer to energies, all layers of a size in one go."""
        preparation = self._preparation
        num_voxels = preparation.geometry.num_voxels
        energies = torch.empty(
            len(layer_energies), num_voxels, dtype=torch.float32, device=self._place.device
        )
        num_clipped = torch.zeros(len(energies), dtype=torch.int64, device=self._place.device)
        for rows in self._place.blocks(self.tile, num_voxels):
            for layers, voxels in _runs_of_equal_layers(preparation.geometry):
                stacked = torch.stack([layer[rows] for layer in features[layers]], dim=1)
                num_clipped[rows] += count_clipped(stacked)
                energies[rows, voxels] = renormalise_and_cut(
                    preparation.voxel_energies(layers, stacked),
                    layer_energies[rows, layers],
                    preparation.threshold,
                ).flatten(1)
        return DrawnTile(energies, {"voxels_clipped": num_clipped})


def _runs_of_equal_layers(geometry: Geometry) -> Iterator[tuple[slice, slice]]:
    """Give runs of layers with as many voxels as each other: their layers, their voxels."""
    slices = geometry.layer_slices
    for _, run in groupby(range(len(slices)), key=lambda layer: geometry.layers[layer].num_voxels):
        first, *more = run
        last = more[-1] if more else first
        yield slice(first, last + 1), slice(slices[first].start, slices[last].stop)
