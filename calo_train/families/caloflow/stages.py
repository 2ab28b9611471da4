"""How a batch of showers becomes features and context of the three stages.

Energies carry their noise into sums and contexts (2106.05285, released code data.py): Flow I
learns layer energies that are higher by half the noise of their voxels.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from calo_train.families.caloflow.networks import (
    build_energy_flow,
    build_student,
    build_voxel_flow,
)
from calo_train.families.contracts import PartInput, ShowerBatch, Stage
from calo_train.families.deposits import layer_sums
from calo_train.families.noise import add_noise
from calo_train.nn import PackedFlow, pack
from calo_train.nn.distillation import DistillationInput, DistilledFlow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nflows.flows import Flow

    from calo_train.families.caloflow.family import CaloFlow
    from calo_train.families.caloflow.preparation import Preparation


class EnergyStage(Stage):
    """Flow I, p(layer energies | conditions)."""

    name: ClassVar[str] = "energy"

    def __init__(self, family: CaloFlow, preparation: Preparation) -> None:
        self.training = family.energy_training
        self.part_names = ("0",)
        self._family = family
        self._preparation = preparation

    def build_part(self, index: int) -> Flow:
        """Build the one energy flow."""
        return build_energy_flow(self._family, self._preparation)

    def inputs(
        self,
        batch: ShowerBatch,
        parts: Sequence[int],
        random: torch.Generator,
    ) -> Callable[[int], PartInput]:
        """Give the shares of layers and the conditions."""
        preparation = self._preparation
        voxels = add_noise(batch.energies, preparation.energy_noise, random)
        energies = layer_sums(voxels, preparation.geometry)
        features = preparation.energy_features(energies, batch.conditions)
        part = PartInput(features, preparation.conditions.columns(batch.conditions))
        return lambda _index: part


class VoxelStage(Stage):
    """Flow II, p(voxels | layer energies, conditions): the teacher."""

    name: ClassVar[str] = "voxels"

    def __init__(self, family: CaloFlow, preparation: Preparation) -> None:
        self.training = family.voxel_training
        self.part_names = ("0",)
        self._family = family
        self._preparation = preparation

    def build_part(self, index: int) -> Flow:
        """Build the one voxel flow."""
        return build_voxel_flow(self._family, self._preparation)

    def inputs(
        self,
        batch: ShowerBatch,
        parts: Sequence[int],
        random: torch.Generator,
    ) -> Callable[[int], PartInput]:
        """Give the shares of voxels in their layers, and conditions with noisy layer energies."""
        part = PartInput(*_voxel_input(self._preparation, batch, random))
        return lambda _index: part


class StudentStage(Stage):
    """The student of Flow II (2110.11377), one pass a block in drawing."""

    name: ClassVar[str] = "student"
    needs: ClassVar[tuple[str, ...]] = ("energy", "voxels")

    def __init__(self, family: CaloFlow, preparation: Preparation) -> None:
        self.training = family.student_training
        self.part_names = ("0",)
        self._family = family
        self._preparation = preparation
        self._parts: Mapping[str, Mapping[str, Tensor]] = {}
        self._packed: dict[tuple[torch.device, torch.dtype], PackedFlow] = {}

    def given(self, parts: Mapping[str, Mapping[str, Tensor]]) -> StudentStage:
        """Give this stage with the trained flows I and II."""
        stage = copy.copy(self)
        stage._parts = dict(parts)
        stage._packed = {}
        return stage

    def build_part(self, index: int) -> DistilledFlow:
        """Build the student beside its teacher."""
        teacher = build_voxel_flow(self._family, self._preparation)
        if self._parts:
            teacher.load_state_dict(dict(self._parts["voxels/0"]))
        student = build_student(self._family, self._preparation)
        return self._family.student.distil(student, teacher)

    def inputs(
        self,
        batch: ShowerBatch,
        parts: Sequence[int],
        random: torch.Generator,
    ) -> Callable[[int], DistillationInput]:
        """Give data as the teacher sees them, and base noise with contexts drawn by Flow I."""
        features, context = _voxel_input(self._preparation, batch, random)
        noise = _normals_like(features, features.shape[1], random)
        part = DistillationInput(features, context, noise, self._drawn_context(batch, random))
        return lambda _index: part

    def _drawn_context(self, batch: ShowerBatch, random: torch.Generator) -> Tensor:
        """Draw conditions, and layer energies of Flow I for them, one of each a shower."""
        preparation = self._preparation
        conditions = self._drawn_conditions(batch, random)
        columns = preparation.conditions.columns(conditions)
        noise = _normals_like(columns, preparation.geometry.num_layers, random)
        features = self._energy_flow(columns).inverse(noise, columns)
        energies = preparation.layer_energies(features, conditions)
        return preparation.voxel_context(energies, conditions)

    def _drawn_conditions(
        self, batch: ShowerBatch, random: torch.Generator
    ) -> Mapping[str, Tensor]:
        """Take those of the batch, so that an epoch sees the training list once, or draw them."""
        if self._family.student.incident_energies == "data":
            return batch.conditions
        drawn = {}
        for name, values in batch.conditions.items():
            low, high = self._preparation.conditions.ranges[name]
            uniform = torch.rand(
                values.shape, generator=random, device=values.device, dtype=values.dtype
            )
            drawn[name] = low + (high - low) * uniform
        return drawn

    def _energy_flow(self, like: Tensor) -> PackedFlow:
        """Pack Flow I for the device and precision of the training."""
        key = (like.device, like.dtype)
        if key not in self._packed:
            flow = build_energy_flow(self._family, self._preparation)
            if self._parts:
                flow.load_state_dict(dict(self._parts["energy/0"]))
            self._packed[key] = pack(flow.eval(), dtype=like.dtype, device=like.device)
        return self._packed[key]


def _voxel_input(
    preparation: Preparation, batch: ShowerBatch, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Give features and context of the voxel flow."""
    voxels = add_noise(batch.energies, preparation.voxel_noise, random)
    energies = layer_sums(voxels, preparation.geometry)
    features = preparation.voxel_features(voxels, energies)
    return features, preparation.voxel_context(energies, batch.conditions)


def _normals_like(rows: Tensor, num_columns: int, random: torch.Generator) -> Tensor:
    return torch.randn(
        len(rows), num_columns, generator=random, device=rows.device, dtype=rows.dtype
    )
