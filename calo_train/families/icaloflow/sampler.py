"""Drawing showers: layer energies, then layer after layer, each cut before the next sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calo_train.families.contracts import DrawnTile, Sampler
from calo_train.families.icaloflow.features import share_features, uniform_of_normals
from calo_train.families.icaloflow.networks import (
    build_energy_flow,
    build_first_layer_flow,
    build_next_layers_flow,
)
from calo_train.nn import PackedFlow, pack
from calo_train.nn.logit import count_clipped, inverse_logit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nflows.flows import Flow

    from calo_train.families.icaloflow.family import ICaloFlow
    from calo_train.families.icaloflow.preparation import Preparation


class ICaloFlowSampler(Sampler):
    """Trained flows, packed for the exact incremental inverse.

    A shower takes normal numbers for its layer energies, for its voxels, and for the noise on the
    layers that another one follows, which is uniform: their distribution function makes it so.
    """

    def __init__(
        self,
        family: ICaloFlow,
        preparation: Preparation,
        parts: Mapping[str, Mapping[str, Tensor]],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.tile = family.tile
        self._preparation = preparation
        self._dtype = dtype
        self._device = device
        geometry, num_conditions = preparation.geometry, preparation.conditions.num_columns
        layers, d = preparation.num_layers, preparation.num_voxels
        self._sizes = [layers, layers * d, (layers - 1) * d] if d > 1 else [layers, 0, 0]
        self.num_normals = sum(self._sizes)

        def packed(flow: Flow, name: str) -> PackedFlow:
            flow.load_state_dict(dict(parts[name]))
            return pack(flow.eval(), dtype=dtype, device=device)

        self._energy_flow = packed(build_energy_flow(family, geometry, num_conditions), "energy/0")
        self._voxel_flows: list[PackedFlow] = []  # of layer 0, of all further layers
        if d > 1:
            first = build_first_layer_flow(family, geometry, num_conditions)
            self._voxel_flows.append(packed(first, "first_layer/0"))
        if d > 1 and layers > 1:
            further = build_next_layers_flow(family, geometry, num_conditions)
            self._voxel_flows.append(packed(further, "next_layers/0"))

    @torch.inference_mode()
    def draw(self, normals: Tensor, conditions: Mapping[str, Tensor]) -> DrawnTile:
        """Draw a tile; repairs count voxels that left the flows' range and were clipped."""
        preparation = self._preparation
        base = normals.to(self._device, self._dtype)
        layer_base, voxel_base, noise_base = torch.split(base, self._sizes, dim=1)
        columns = preparation.conditions.columns(
            {name: values.to(self._device, self._dtype) for name, values in conditions.items()}
        )
        layer_energies = preparation.layer_energies(self._energy_flow.inverse(layer_base, columns))
        if preparation.num_voxels == 1:
            return DrawnTile(layer_energies.float())
        voxel_base = voxel_base.view(len(base), -1, preparation.num_voxels)
        noise_base = noise_base.view(len(base), -1, preparation.num_voxels)
        layer_features = preparation.layer_features(layer_energies)
        energies = torch.empty(voxel_base.shape, dtype=torch.float32, device=self._device)
        num_clipped = torch.zeros(len(base), dtype=torch.int64, device=self._device)
        context = preparation.first_context(columns, layer_features)
        for layer in range(preparation.num_layers):
            features = self._voxel_flows[min(layer, 1)].inverse(voxel_base[:, layer], context)
            num_clipped += count_clipped(features)
            energy = layer_energies[:, layer, None]
            voxels = preparation.cut(inverse_logit(features) * energy)
            energies[:, layer] = voxels
            if layer + 1 < preparation.num_layers:
                noise = preparation.voxel_noise * uniform_of_normals(noise_base[:, layer])
                context = preparation.next_context(
                    columns,
                    layer_features,
                    share_features(voxels + noise)[:, None],
                    torch.full((len(base), 1), layer + 1, device=self._device),
                )[:, 0]
        return DrawnTile(energies.flatten(1), {"voxels_clipped": num_clipped})
