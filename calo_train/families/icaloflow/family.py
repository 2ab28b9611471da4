"""iCaloFlow as a family: its hyperparameters, its stages and its sampler.

p(shower | conditions) = p(E_0..E_L | conditions) p(I_0 | E_0, conditions)
prod_k p(I_k | I_{k-1}, E_k, E_{k-1}, k, conditions), the last factor one network for all layers
(2305.11934). Nothing here knows a detector beyond its Geometry; torch is imported when something
is built.
"""

from __future__ import annotations

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
from calo_train.quantities import format_energy, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from calo_train.families.conditions import ConditionContext
    from calo_train.geometry import Geometry
    from calo_train.showers.statistics import ShowerStatistics

_HEADROOM = 1.1  # of an automatic unit over the largest layer energy of the training data


@dataclass
class ICaloFlow(Family):
    """Hyperparameters of iCaloFlow; `conf/model/icaloflow.yaml` holds the paper's with sources."""

    papers: ClassVar[tuple[str, ...]] = ("icaloflow", "caloflow2", "maf", "spline-flows")
    sampler: str = TEACHER
    energy_flow: FlowSettings = field(default_factory=FlowSettings)
    first_layer_flow: FlowSettings = field(default_factory=FlowSettings)
    next_layers_flow: FlowSettings = field(default_factory=FlowSettings)
    first_layer_student: StudentSettings = field(default_factory=StudentSettings)
    next_layers_student: StudentSettings = field(default_factory=StudentSettings)
    layers_per_shower: int | None = 4
    layer_energy_unit: str = "auto"
    voxel_noise: str = "5keV"
    layer_noise: str = "5keV"
    output_threshold: str | None = None
    tile: int = 1000
    parts_per_group: int | str | None = None
    energy_training: TrainingSettings = field(default_factory=TrainingSettings)
    first_layer_training: TrainingSettings = field(default_factory=TrainingSettings)
    next_layers_training: TrainingSettings = field(default_factory=TrainingSettings)
    first_layer_student_training: TrainingSettings = field(default_factory=TrainingSettings)
    next_layers_student_training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        require_parts_per_group(self.parts_per_group)
        require_sampler(self.sampler, where="model.sampler")
        if self.tile < 1 or (self.layers_per_shower is not None and self.layers_per_shower < 1):
            raise UsageError(
                f"tile={self.tile} and layers_per_shower={self.layers_per_shower}: both must be "
                "at least 1",
                where="model.tile, model.layers_per_shower",
                do="give numbers from 1; layers_per_shower=null is every layer",
            )

    def require_describable(self, geometry: Geometry, conditions: Sequence[str]) -> None:
        """Refuse layers of different grids: one network draws them all."""
        require_incident_energy("iCaloFlow", geometry, conditions)
        shapes = geometry.layer_shapes
        odd = next((layer for layer, shape in enumerate(shapes) if shape != shapes[0]), None)
        if odd is not None:
            raise UsageError(
                f"iCaloFlow draws all layers with one network, and layer {odd} of "
                f"{geometry.name} has {_grid(shapes[odd])} cells where layer 0 has "
                f"{_grid(shapes[0])}",
                where="model=icaloflow",
                do="use model=caloflow or model=l2lflows, which take layers of any size",
            )
        if self.sampler == STUDENT and geometry.num_voxels == geometry.num_layers:
            raise UsageError(
                f"{geometry.name} has one voxel in each layer, so there is nothing to distil",
                where="model.sampler=student",
                do="use model.sampler=teacher",
            )

    def require_statistics(self, geometry: Geometry, statistics: ShowerStatistics) -> None:
        """Layer energies must stay below their unit: their logit lives on [0, 1]."""
        largest = max(statistics.layer_energy_max)
        where = f"training data on {geometry.name}; model.layer_energy_unit"
        if largest <= 0:
            raise DataError(
                "no training shower holds any energy",
                where=where,
                do="give showers with energy in their voxels",
            )
        unit = self.layer_energy_unit_of(statistics)
        if largest >= unit:
            layer = statistics.layer_energy_max.index(largest)
            raise DataError(
                f"layer {layer} reaches {format_energy(largest)}, above the unit of layer "
                f"energies ({format_energy(unit)})",
                where=where,
                do="set model.layer_energy_unit=auto, which follows the data",
            )

    def layer_energy_unit_of(self, statistics: ShowerStatistics) -> float:
        """Give the unit of layer energies in MeV, `auto` from the largest of the training data."""
        if self.layer_energy_unit == "auto":
            return _HEADROOM * max(statistics.layer_energy_max)
        return parse_quantity(self.layer_energy_unit, "energy", where="model.layer_energy_unit")

    def stages(
        self, geometry: Geometry, statistics: ShowerStatistics, threshold: float
    ) -> tuple[Stage, ...]:
        """Give the three flows, as far as the detector has something for them, and students."""
        from calo_train.families.icaloflow.preparation import Preparation
        from calo_train.families.icaloflow.stages import (
            EnergyStage,
            FirstLayerStage,
            NextLayersStage,
        )
        from calo_train.families.icaloflow.student_stages import (
            FirstLayerStudentStage,
            NextLayersStudentStage,
        )

        preparation = Preparation.of(self, geometry, statistics, threshold)
        teachers: list[Stage] = []
        students: list[Stage] = []
        if preparation.num_voxels > 1:
            teachers.append(FirstLayerStage(self, preparation))
            students.append(FirstLayerStudentStage(self, preparation))
        if preparation.has_next_layers:
            teachers.append(NextLayersStage(self, preparation))
            students.append(NextLayersStudentStage(self, preparation))
        drawn_by = students if self.sampler == STUDENT else []
        return EnergyStage(self, preparation), *teachers, *drawn_by

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
        """Build the sampler from `energy/0` and `first_layer/0`, `next_layers/0` or those of
        their students.
        """
        from calo_train.families.icaloflow.preparation import Preparation
        from calo_train.families.icaloflow.sampler import ICaloFlowSampler

        preparation = Preparation.of(self, geometry, statistics, threshold)
        return ICaloFlowSampler(self, preparation, parts, dtype=dtype, device=device)

    def drawn_by(self, sampler: str) -> ICaloFlow:
        """Give this family with the teacher or the student as its sampler."""
        require_sampler(sampler, where="--sampler")
        return replace(self, sampler=sampler)

    def condition_context(self, statistics: ShowerStatistics) -> ConditionContext:
        """Give the map from conditions to context columns."""
        from calo_train.families.conditions import ConditionContext
        from calo_train.families.icaloflow.features import incident_energy_context

        return ConditionContext(statistics.condition_range, incident_energy_context)


def _grid(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
