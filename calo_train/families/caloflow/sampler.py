"""Drawing showers: layer energies by Flow I, voxels by the teacher or the student, the cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calo_train.families.caloflow.networks import (
    build_energy_flow,
    build_student,
    build_voxel_flow,
)
from calo_train.families.contracts import DrawnTile, Sampler
from calo_train.families.place import Place
from calo_train.families.students import STUDENT, pack_student, require_student
from calo_train.nn.logit import count_clipped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calo_train.families.caloflow.family import CaloFlow
    from calo_train.families.caloflow.preparation import Preparation
    from calo_train.nn import PackedFlow
    from calo_train.nn.inverse_autoregressive import PackedInverseFlow


class CaloFlowSampler(Sampler):
    """Trained flows, packed; the family says whether teacher or student draws the voxels."""

    def __init__(
        self,
        family: CaloFlow,
        preparation: Preparation,
        parts: Mapping[str, Mapping[str, Tensor]],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        if family.sampler == STUDENT:
            require_student(parts, "student/0")
        self.tile = family.tile
        self.num_normals = preparation.geometry.num_layers + sum(preparation.groups)
        self._preparation = preparation
        self._place = Place(dtype, device)
        self._energy_flow = self._place.pack(
            build_energy_flow(family, preparation), parts["energy/0"]
        )
        self._voxel_flow: PackedFlow | PackedInverseFlow | None = None
        if preparation.groups and family.sampler == STUDENT:
            student = build_student(family, preparation)
            self._voxel_flow = pack_student(
                student, parts, "student/0", dtype=dtype, device=device
            )
        elif preparation.groups:
            teacher = build_voxel_flow(family, preparation)
            self._voxel_flow = self._place.pack(teacher, parts["voxels/0"])

    @torch.inference_mode()
    def draw(self, normals: Tensor, conditions: Mapping[str, Tensor]) -> DrawnTile:
        """Draw a tile; repairs count voxels that left the flow's range and were clipped."""
        preparation = self._preparation
        base, given = self._place.take(normals), self._place.take_all(conditions)
        num_layers = preparation.geometry.num_layers
        columns = preparation.conditions.columns(given)
        layer_features = self._energy_flow.inverse(base[:, :num_layers], columns)
        layer_energies = preparation.layer_energies(layer_features, given)
        features = base[:, num_layers:]
        if self._voxel_flow is not None:
            context = preparation.voxel_context(layer_energies, given)
            features = self._voxel_flow.inverse(features, context)
        num_voxels = preparation.geometry.num_voxels
        energies = torch.empty(
            self.tile, num_voxels, dtype=torch.float32, device=self._place.device
        )
        for rows in self._place.blocks(self.tile, num_voxels):
            energies[rows] = preparation.voxel_energies(features[rows], layer_energies[rows])
        return DrawnTile(energies, {"voxels_clipped": count_clipped(features)})
