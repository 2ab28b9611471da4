"""The three flows of iCaloFlow, with the widths that follow from the geometry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nflows.flows import Flow

    from calo_train.families.icaloflow.family import ICaloFlow
    from calo_train.geometry import Geometry


def build_energy_flow(family: ICaloFlow, geometry: Geometry, num_conditions: int) -> Flow:
    """Build Flow-1, p(E_0 .. E_L | conditions)."""
    return family.energy_flow.shape().build(geometry.num_layers, num_conditions)


def build_first_layer_flow(family: ICaloFlow, geometry: Geometry, num_conditions: int) -> Flow:
    """Build Flow-2, p(voxels of layer 0 | conditions, E_0)."""
    return family.first_layer_flow.shape().build(voxels_of_layer(geometry), num_conditions + 1)


def build_next_layers_flow(family: ICaloFlow, geometry: Geometry, num_conditions: int) -> Flow:
    """Build Flow-3, p(voxels of layer k | conditions, E_k, E_(k-1), voxels of layer k-1, k)."""
    num_voxels = voxels_of_layer(geometry)
    num_context = num_conditions + 2 + num_voxels + geometry.num_layers - 1
    return family.next_layers_flow.shape().build(num_voxels, num_context)


def voxels_of_layer(geometry: Geometry) -> int:
    """Count the voxels of one layer; all have as many."""
    return geometry.layers[0].num_voxels
