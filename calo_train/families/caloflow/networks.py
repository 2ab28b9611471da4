"""The flows of CaloFlow and its student, with the widths that follow from the geometry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nflows.flows import Flow

    from calo_train.families.caloflow.family import CaloFlow
    from calo_train.families.caloflow.preparation import Preparation
    from calo_train.nn.inverse_autoregressive import InverseAutoregressiveFlow


def build_energy_flow(family: CaloFlow, preparation: Preparation) -> Flow:
    """Build Flow I, p(layer energies | conditions)."""
    num_layers = preparation.geometry.num_layers
    return family.energy_flow.shape().build(num_layers, preparation.conditions.num_columns)


def build_voxel_flow(family: CaloFlow, preparation: Preparation) -> Flow:
    """Build Flow II, p(voxels | layer energies, conditions); no voxel changes its layer."""
    groups = preparation.groups
    return family.voxel_flow.shape().build(sum(groups), preparation.num_context, groups=groups)


def build_student(family: CaloFlow, preparation: Preparation) -> InverseAutoregressiveFlow:
    """Build the student of Flow II; a chain like its teacher's with networks of its own width."""
    groups = preparation.groups
    return family.student.build(
        family.voxel_flow, sum(groups), preparation.num_context, groups=groups
    )
