"""Drawing showers: energy flow, then layer by layer, then renormalise-and-cut (App. B.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calo_train.families.contracts import DrawnTile, Sampler
from calo_train.families.l2lflows.features import renormalise_and_cut
from calo_train.families.l2lflows.networks import build_causal_flow, build_energy_flow
from calo_train.nn import PackedFlow, pack

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nflows.flows import Flow

    from calo_train.families.l2lflows.family import L2LFlows
    from calo_train.families.l2lflows.stages import Preparation


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
        self._dtype = dtype
        self._device = device

        def packed(flow: Flow, weights: Mapping[str, Tensor]) -> PackedFlow:
            flow.load_state_dict(dict(weights))
            return pack(flow.eval(), dtype=dtype, device=device)

        energy_flow = build_energy_flow(family, geometry, num_conditions)
        self._energy_flow = packed(energy_flow, parts["energy/0"])
        self._causal_flows = [
            packed(
                build_causal_flow(family, geometry, num_conditions, layer),
                parts[f"causal/{layer}"],
            )
            for layer in range(geometry.num_layers)
        ]

    @torch.inference_mode()
    def draw(self, normals: Tensor, conditions: Mapping[str, Tensor]) -> DrawnTile:
        """Draw a tile; repairs count voxels that left the flows' range and were clipped."""
        preparation = self._preparation
        base = normals.to(self._device, self._dtype)
        columns = {
            name: values.to(self._device, self._dtype) for name, values in conditions.items()
        }
        num_layers = preparation.geometry.num_layers
        layer_features = self._energy_flow.inverse(
            base[:, :num_layers], preparation.conditions.columns(columns)
        )
        layer_energies = preparation.layer_energies(layer_features)
        voxel_base = base[:, num_layers:]
        energies = torch.zeros_like(voxel_base)
        drawn: list[Tensor] = []
        for layer, piece in enumerate(preparation.geometry.layer_slices):
            context = preparation.causal_context(layer, drawn.__getitem__, layer_energies, columns)
            features = self._causal_flows[layer].inverse(voxel_base[:, piece], context)
            drawn.append(features)
            energies[:, piece] = renormalise_and_cut(
                preparation.voxel_energies(layer, features),
                layer_energies[:, layer],
                preparation.threshold,
            )
        return DrawnTile(energies, {"voxels_clipped": _count_clipped(drawn)})


def _count_clipped(features: list[Tensor]) -> Tensor:
    """Count features beyond the logit of a share in [0, 1], for each shower (n,)."""
    limit = -torch.log(torch.tensor(1e-6, dtype=torch.float64)).item()
    return torch.stack([(layer.abs() > limit).sum(dim=1) for layer in features]).sum(dim=0)
