"""Drawing showers: layer energies, then layer after layer, each cut before the next sees it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from calo_train.families.contracts import DrawnTile, Sampler
from calo_train.families.icaloflow.features import share_features
from calo_train.families.icaloflow.networks import (
    build_energy_flow,
    build_first_layer_flow,
    build_first_layer_student,
    build_next_layers_flow,
    build_next_layers_student,
)
from calo_train.families.noise import uniform_of_normals
from calo_train.families.place import Place
from calo_train.families.students import STUDENT, pack_student
from calo_train.nn.logit import count_clipped, inverse_logit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nflows.flows import Flow

    from calo_train.families.icaloflow.family import ICaloFlow
    from calo_train.families.icaloflow.preparation import Preparation
    from calo_train.geometry import Geometry
    from calo_train.nn import PackedFlow
    from calo_train.nn.inverse_autoregressive import InverseAutoregressiveFlow, PackedInverseFlow

    VoxelFlow = PackedFlow | PackedInverseFlow

Built = TypeVar("Built")


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
        self._place = Place(dtype, device)
        layers, d = preparation.num_layers, preparation.num_voxels
        self._sizes = [layers, layers * d, (layers - 1) * d] if d > 1 else [layers, 0, 0]
        self.num_normals = sum(self._sizes)

        packing = _Packing(family, preparation, parts, self._place)
        self._energy_flow = packing.teacher(build_energy_flow, "energy/0")
        self._voxel_flows = packing.voxel_flows()

    @torch.inference_mode()
    def draw(self, normals: Tensor, conditions: Mapping[str, Tensor]) -> DrawnTile:
        """Draw a tile; repairs count voxels that left the flows' range and were clipped."""
        preparation = self._preparation
        base = self._place.take(normals)
        layer_base, voxel_base, noise_base = torch.split(base, self._sizes, dim=1)
        columns = preparation.conditions.columns(self._place.take_all(conditions))
        layer_energies = preparation.layer_energies(self._energy_flow.inverse(layer_base, columns))
        if preparation.num_voxels == 1:
            return DrawnTile(layer_energies.float())
        by_layer = (len(base), -1, preparation.num_voxels)
        return self._draw_layers(
            columns, layer_energies, voxel_base.view(by_layer), noise_base.view(by_layer)
        )

    def _draw_layers(
        self, columns: Tensor, layer_energies: Tensor, voxel_base: Tensor, noise_base: Tensor
    ) -> DrawnTile:
        """Draw layers (n, layers, d), each from the one before as it is read out."""
        preparation = self._preparation
        layer_features = preparation.layer_features(layer_energies)
        energies = torch.empty(voxel_base.shape, dtype=torch.float32, device=self._place.device)
        num_clipped = torch.zeros(len(energies), dtype=torch.int64, device=self._place.device)
        context = preparation.first_context(columns, layer_features)
        for layer, flow in enumerate(self._flow_of_each_layer()):
            features = flow.inverse(voxel_base[:, layer], context)
            num_clipped += count_clipped(features)
            voxels = preparation.cut(inverse_logit(features) * layer_energies[:, layer, None])
            energies[:, layer] = voxels
            if layer + 1 == preparation.num_layers:
                break
            noise = preparation.voxel_noise * uniform_of_normals(noise_base[:, layer])
            previous = share_features(voxels + noise)
            following = torch.full((len(energies), 1), layer + 1, device=self._place.device)
            context = preparation.next_context(
                columns, layer_features, previous[:, None], following
            )[:, 0]
        return DrawnTile(energies.flatten(1), {"voxels_clipped": num_clipped})

    def _flow_of_each_layer(self) -> Iterator[VoxelFlow]:
        first, *further = self._voxel_flows
        yield first
        for flow in further:
            yield from repeat(flow, self._preparation.num_layers - 1)


@dataclass(frozen=True)
class _Packing:
    """Where weights come from, and the place that flows are packed for."""

    family: ICaloFlow
    preparation: Preparation
    parts: Mapping[str, Mapping[str, Tensor]]
    place: Place

    def voxel_flows(self) -> list[VoxelFlow]:
        """Give what draws layer 0 and what draws the others, as far as there are any."""
        is_student = self.family.sampler == STUDENT
        flows: list[VoxelFlow] = []
        if self.preparation.num_voxels > 1:
            flows.append(
                self.student(build_first_layer_student, "first_layer_student/0")
                if is_student
                else self.teacher(build_first_layer_flow, "first_layer/0")
            )
        if self.preparation.has_next_layers:
            flows.append(
                self.student(build_next_layers_student, "next_layers_student/0")
                if is_student
                else self.teacher(build_next_layers_flow, "next_layers/0")
            )
        return flows

    def teacher(self, build: Callable[[ICaloFlow, Geometry, int], Flow], part: str) -> PackedFlow:
        return self.place.pack(self._built(build), self.parts[part])

    def student(
        self, build: Callable[[ICaloFlow, Geometry, int], InverseAutoregressiveFlow], part: str
    ) -> PackedInverseFlow:
        student, place = self._built(build), self.place
        return pack_student(student, self.parts, part, dtype=place.dtype, device=place.device)

    def _built(self, build: Callable[[ICaloFlow, Geometry, int], Built]) -> Built:
        num_conditions = self.preparation.conditions.num_columns
        return build(self.family, self.preparation.geometry, num_conditions)
