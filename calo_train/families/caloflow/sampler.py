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
from calo_train.families.students import STUDENT, pack_student, require_student
from calo_train.nn import PackedFlow, pack
from calo_train.nn.logit import count_clipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from calo_train.families.caloflow.family import CaloFlow
    from calo_train.families.caloflow.preparation import Preparation
    from calo_train.nn.inverse_autoregressive import PackedInverseFlow

_BLOCK = 1 << 17  # voxels that pass through the steps of the end together


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
        self._dtype = dtype
        self._device = device
        energy_flow = build_energy_flow(family, preparation)
        energy_flow.load_state_dict(dict(parts["energy/0"]))
        self._energy_flow = pack(energy_flow.eval(), dtype=dtype, device=device)
        self._voxel_flow: PackedFlow | PackedInverseFlow | None = None
        if preparation.groups:
            packed = _packed_student if family.sampler == STUDENT else _packed_teacher
            self._voxel_flow = packed(family, preparation, parts, dtype, device)

    @torch.inference_mode()
    def draw(self, normals: Tensor, conditions: Mapping[str, Tensor]) -> DrawnTile:
        """Draw a tile; repairs count voxels that left the flow's range and were clipped."""
        preparation = self._preparation
        base = normals.to(self._device, self._dtype)
        given = {name: values.to(self._device, self._dtype) for name, values in conditions.items()}
        num_layers = preparation.geometry.num_layers
        columns = preparation.conditions.columns(given)
        layer_features = self._energy_flow.inverse(base[:, :num_layers], columns)
        layer_energies = preparation.layer_energies(layer_features, given)
        features = base[:, num_layers:]
        if self._voxel_flow is not None:
            context = preparation.voxel_context(layer_energies, given)
            features = self._voxel_flow.inverse(features, context)
        energies = torch.empty(
            self.tile, preparation.geometry.num_voxels, dtype=torch.float32, device=self._device
        )
        for rows in self._blocks():
            energies[rows] = preparation.voxel_energies(features[rows], layer_energies[rows])
        return DrawnTile(energies, {"voxels_clipped": count_clipped(features)})

    def _blocks(self) -> Iterator[slice]:
        """Cut a tile so that a block stays in the processor's cache; a GPU takes it whole."""
        num_voxels = self._preparation.geometry.num_voxels
        num_rows = max(_BLOCK // num_voxels, 1) if self._device.type == "cpu" else self.tile
        return (slice(first, first + num_rows) for first in range(0, self.tile, num_rows))


def _packed_teacher(
    family: CaloFlow,
    preparation: Preparation,
    parts: Mapping[str, Mapping[str, Tensor]],
    dtype: torch.dtype,
    device: torch.device,
) -> PackedFlow:
    flow = build_voxel_flow(family, preparation)
    flow.load_state_dict(dict(parts["voxels/0"]))
    return pack(flow.eval(), dtype=dtype, device=device)


def _packed_student(
    family: CaloFlow,
    preparation: Preparation,
    parts: Mapping[str, Mapping[str, Tensor]],
    dtype: torch.dtype,
    device: torch.device,
) -> PackedInverseFlow:
    student = build_student(family, preparation)
    return pack_student(student, parts, "student/0", dtype=dtype, device=device)
