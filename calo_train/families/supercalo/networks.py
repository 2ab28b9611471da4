"""The three flows of SuperCalo, with the widths that follow from the geometry (2308.11700)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nflows.flows import Flow

    from calo_train.families.supercalo.coarse_grid import CoarseGrid
    from calo_train.families.supercalo.family import SuperCalo


def build_energy_flow(family: SuperCalo, grid: CoarseGrid, num_conditions: int) -> Flow:
    """Build Flow-1, p(layer energies | conditions)."""
    return family.energy_flow.shape().build(grid.fine.num_layers, num_conditions)


def build_coarse_flow(family: SuperCalo, grid: CoarseGrid, num_conditions: int) -> Flow:
    """Build Flow-2, p(coarse voxels | conditions, energies of coarse layers)."""
    return family.coarse_flow.shape().build(grid.num_voxels, num_conditions + grid.num_layers)


def build_upsampling_flow(family: SuperCalo, grid: CoarseGrid, num_conditions: int) -> Flow:
    """Build the super-resolution flow, p(fine voxels of one coarse voxel | its surroundings)."""
    num_context = upsampling_context_width(grid, num_conditions)
    return family.upsampling_flow.shape().build(grid.num_fine, num_context)


def upsampling_context_width(grid: CoarseGrid, num_conditions: int) -> int:
    """Count conditions, spanned layers, the coarse voxel, its neighbours and its place."""
    surroundings = 1 + int(grid.neighbours.shape[1]) + int(grid.position.shape[1])
    return num_conditions + grid.layers_joined + surroundings
