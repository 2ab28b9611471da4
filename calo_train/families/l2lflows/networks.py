"""The two kinds of flow of L2LFlows, with the widths that follow from the geometry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.nn.flows import embedding_network

if TYPE_CHECKING:
    from nflows.flows import Flow

    from calo_train.families.l2lflows.family import L2LFlows
    from calo_train.geometry import Geometry


def build_energy_flow(family: L2LFlows, geometry: Geometry, num_conditions: int) -> Flow:
    """Build p(E_0 .. E_L | conditions); the context enters directly (2302.11594 Sec. 3.1)."""
    return family.energy_flow.shape().build(geometry.num_layers, num_conditions)


def build_causal_flow(
    family: L2LFlows, geometry: Geometry, num_conditions: int, layer: int
) -> Flow:
    """Build p(voxels of `layer` | previous layers, E_layer, conditions) (2302.11594 Sec. 3.2).

    An embedding network compresses the context of every layer but the first, which sees only its
    layer energy and the conditions.
    """
    shape = family.causal_flow.shape()
    num_voxels = geometry.layers[layer].num_voxels
    previous = previous_layers(family, layer)
    num_context = sum(geometry.layers[index].num_voxels for index in previous) + 1 + num_conditions
    if not previous:
        return shape.build(num_voxels, num_context)
    embedding = embedding_network(num_context, family.embedding_hidden, family.embedding_features)
    return shape.build(num_voxels, family.embedding_features, embedding)


def previous_layers(family: L2LFlows, layer: int) -> range:
    """Layers that `layer` is conditioned on, nearest first."""
    return range(layer - 1, max(layer - family.num_previous_layers, 0) - 1, -1)
