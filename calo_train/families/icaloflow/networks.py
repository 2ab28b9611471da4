"""The three flows of iCaloFlow and two students, with the widths that follow from the geometry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nflows.flows import Flow

    from calo_train.families.icaloflow.family import ICaloFlow
    from calo_train.geometry import Geometry
    from calo_train.nn.inverse_autoregressive import InverseAutoregressiveFlow


def build_energy_flow(family: ICaloFlow, geometry: Geometry, num_conditions: int) -> Flow:
    """Build Flow-1, p(E_0 .. E_L | conditions)."""
    return family.energy_flow.shape().build(geometry.num_layers, num_conditions)


def build_first_layer_flow(family: ICaloFlow, geometry: Geometry, num_conditions: int) -> Flow:
    """Build Flow-2, p(voxels of layer 0 | conditions, E_0)."""
    return family.first_layer_flow.shape().build(*first_layer_widths(geometry, num_conditions))


def build_next_layers_flow(family: ICaloFlow, geometry: Geometry, num_conditions: int) -> Flow:
    """Build Flow-3, p(voxels of layer k | conditions, E_k, E_(k-1), voxels of layer k-1, k)."""
    return family.next_layers_flow.shape().build(*next_layers_widths(geometry, num_conditions))


def build_first_layer_student(
    family: ICaloFlow, geometry: Geometry, num_conditions: int
) -> InverseAutoregressiveFlow:
    """Build the student of Flow-2."""
    widths = first_layer_widths(geometry, num_conditions)
    return family.first_layer_student.build(family.first_layer_flow, *widths)


def build_next_layers_student(
    family: ICaloFlow, geometry: Geometry, num_conditions: int
) -> InverseAutoregressiveFlow:
    """Build the student of Flow-3."""
    widths = next_layers_widths(geometry, num_conditions)
    return family.next_layers_student.build(family.next_layers_flow, *widths)


def first_layer_widths(geometry: Geometry, num_conditions: int) -> tuple[int, int]:
    """Count features and context of Flow-2."""
    return voxels_of_layer(geometry), num_conditions + 1


def next_layers_widths(geometry: Geometry, num_conditions: int) -> tuple[int, int]:
    """Count features and context of Flow-3."""
    num_voxels = voxels_of_layer(geometry)
    return num_voxels, num_conditions + 2 + num_voxels + geometry.num_layers - 1


def voxels_of_layer(geometry: Geometry) -> int:
    """Count the voxels of one layer; all have as many."""
    return geometry.layers[0].num_voxels
