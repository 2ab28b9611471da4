"""CaloFlow as a family: its hyperparameters, its stages and its two samplers.

p(shower | conditions) = p(E_0..E_L | conditions) p(voxels | E_0..E_L, conditions): Flow I and
Flow II (2106.05285). The student of Flow II draws in one pass a block (2110.11377). Nothing here
knows a detector beyond its Geometry; torch is imported when something is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from calo_train.errors import DataError, UsageError
from calo_train.families.contracts import (
    Family,
    Sampler,
    Stage,
    TrainingSettings,
    require_incident_energy,
    require_parts_per_group,
)
from calo_train.families.flow_settings import FlowSettings
from calo_train.families.students import STUDENT, TEACHER, StudentSettings, require_sampler
from calo_train.quantities import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from calo_train.geometry import Geometry
    from calo_train.showers.statistics import ShowerStatistics

AUTO = "auto"
_ROUNDED = 0.01  # published factors have three digits; what exceeds them by less is clipped


@dataclass
class CaloFlowStudent(StudentSettings):
    """The student of Flow II, and which incident energies it is given beside its base noise."""

    hidden_features: int = 504
    dropout: float = 0.05
    incident_energies: str = "data"  # or uniform, over the trained domain

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.incident_energies not in ("data", "uniform"):
            raise UsageError(
                f"incident_energies '{self.incident_energies}' is unknown",
                where="model.student.incident_energies",
                do="use data or uniform",
            )


@dataclass
class CaloFlow(Family):
    """Hyperparameters of CaloFlow; `conf/model/caloflow.yaml` holds the papers' with sources."""

    papers: ClassVar[tuple[str, ...]] = ("caloflow", "caloflow2", "maf", "spline-flows")
    sampler: str = TEACHER
    energy_flow: FlowSettings = field(default_factory=FlowSettings)
    voxel_flow: FlowSettings = field(default_factory=FlowSettings)
    student: CaloFlowStudent = field(default_factory=CaloFlowStudent)
    largest_visible_fraction: float | str = AUTO
    incident_energy_unit: str = AUTO
    layer_energy_unit: str = AUTO
    energy_flow_noise: str = "1keV"
    voxel_flow_noise: str = "1keV"
    voxel_cut: str = "10keV"
    tile: int = 1000
    parts_per_group: int | str | None = None
    energy_training: TrainingSettings = field(default_factory=TrainingSettings)
    voxel_training: TrainingSettings = field(default_factory=TrainingSettings)
    student_training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        require_parts_per_group(self.parts_per_group)
        require_sampler(self.sampler, where="model.sampler")
        if self.tile < 1:
            raise UsageError(
                f"tile={self.tile} is not positive", where="model.tile", do="give at least 1"
            )
        factor = self.largest_visible_fraction
        if factor != AUTO and not (isinstance(factor, int | float) and factor > 0):
            raise UsageError(
                f"largest_visible_fraction={factor} is neither auto nor above zero",
                where="model.largest_visible_fraction",
                do="give auto, or the largest visible over incident energy of the data",
            )

    def require_describable(self, geometry: Geometry, conditions: Sequence[str]) -> None:
        """Any layered detector will do; a student needs a layer of more than one voxel."""
        require_incident_energy("CaloFlow", geometry, conditions)
        if self.sampler == STUDENT and geometry.num_voxels == geometry.num_layers:
            raise UsageError(
                f"each layer of {geometry.name} is one voxel: there is no voxel flow to distil",
                where="model.sampler=student",
                do="use model.sampler=teacher",
            )

    def require_statistics(self, geometry: Geometry, statistics: ShowerStatistics) -> None:
        """Visible energies must not exceed the share of the incident energy they are scaled by."""
        factor, found = self.largest_visible_fraction, statistics.visible_fraction_max
        if isinstance(factor, str) or found <= factor * (1 + _ROUNDED):
            return
        raise DataError(
            f"a shower has {found:.4g} of its incident energy, above the largest share {factor:g}",
            where=f"training data on {geometry.name}; model.largest_visible_fraction",
            do="set model.largest_visible_fraction=auto, or check the units of the data",
        )

    def stages(
        self, geometry: Geometry, statistics: ShowerStatistics, threshold: float
    ) -> tuple[Stage, ...]:
        """Give Flow I, Flow II where a layer has several voxels, and the student if it draws."""
        from calo_train.families.caloflow.preparation import Preparation
        from calo_train.families.caloflow.stages import EnergyStage, StudentStage, VoxelStage

        preparation = Preparation.of(self, geometry, statistics, threshold)
        stages: list[Stage] = [EnergyStage(self, preparation)]
        if preparation.groups:
            stages.append(VoxelStage(self, preparation))
            if self.sampler == STUDENT:
                stages.append(StudentStage(self, preparation))
        return tuple(stages)

    def build_sampler(
        self,
        geometry: Geometry,
        statistics: ShowerStatistics,
        threshold: float,
        parts: Mapping[str, Mapping[str, Tensor]],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Sampler:
        """Build the sampler from the weights `energy/0` and `voxels/0` or `student/0`."""
        from calo_train.families.caloflow.preparation import Preparation
        from calo_train.families.caloflow.sampler import CaloFlowSampler

        preparation = Preparation.of(self, geometry, statistics, threshold)
        return CaloFlowSampler(self, preparation, parts, dtype=dtype, device=device)

    def drawn_by(self, sampler: str) -> CaloFlow:
        """Give this family with the teacher or the student as its sampler."""
        require_sampler(sampler, where="--sampler")
        return replace(self, sampler=sampler)

    def visible_scale(self, geometry: Geometry, statistics: ShowerStatistics) -> float:
        """Give the largest visible over incident energy.

        auto: no training shower exceeds it with its noise.
        """
        if not isinstance(self.largest_visible_fraction, str):
            return float(self.largest_visible_fraction)
        noise = parse_quantity(self.energy_flow_noise, "energy", where="model.energy_flow_noise")
        lowest = statistics.condition_range["incident_energy"][0]
        scale = statistics.visible_fraction_max + geometry.num_voxels * noise / lowest
        return scale or 1.0  # without noise and energy any scale will do

    def incident_unit(self, statistics: ShowerStatistics) -> float:
        """Give the incident energy whose context is 0.

        auto: the geometric middle of the trained domain, 10 GeV for CaloGAN as published.
        """
        if self.incident_energy_unit != AUTO:
            return parse_quantity(
                self.incident_energy_unit, "energy", where="model.incident_energy_unit"
            )
        return math.sqrt(math.prod(statistics.condition_range["incident_energy"]))

    def layer_unit(self, statistics: ShowerStatistics) -> float:
        """Give the layer energy whose context is 0.

        auto: a tenth of the mean visible energy at the middle of the domain, 1 GeV for CaloGAN as
        published.
        """
        if self.layer_energy_unit != AUTO:
            return parse_quantity(
                self.layer_energy_unit, "energy", where="model.layer_energy_unit"
            )
        middle = math.sqrt(math.prod(statistics.condition_range["incident_energy"]))
        return 0.1 * middle * (statistics.visible_fraction or 1.0)
