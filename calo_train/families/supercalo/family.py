"""SuperCalo as a family: its hyperparameters, its three stages, its sampler and its refiner.

p(shower | conditions) = p(layer energies | conditions) p(coarse | layer energies, conditions)
prod_i q(fine_i | coarse_i, neighbours, layer energies, conditions) with one flow q for all coarse
voxels i (2308.11700). Nothing here knows a detector beyond its Geometry; torch is imported when
something is built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from calo_train.errors import DataError, UsageError
from calo_train.families.contracts import (
    Family,
    Refiner,
    Sampler,
    Stage,
    TrainingSettings,
    require_incident_energy,
    require_parts_per_group,
)
from calo_train.families.flow_settings import FlowSettings
from calo_train.families.supercalo.coarse_grid import (
    CoarseGrid,
    coarsened,
    require_divisible,
    require_factors,
)
from calo_train.quantities import format_energy, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from calo_train.families.conditions import ConditionContext
    from calo_train.geometry import Geometry, Regrouping
    from calo_train.showers.statistics import ShowerStatistics

AUTO = "auto"
_VOXELISATION_A = {"r": 1, "alpha": 2, "z": 5}  # 2308.11700
_COARSE_VOXEL = "coarse_voxel"  # its largest energy, among the statistics
# Layer energies are shares of their unit; a finite sample does not hold the largest there is.
_LAYER_HEADROOM = 1.1


@dataclass
class SuperCalo(Family):
    """Hyperparameters of SuperCalo; `conf/model/supercalo.yaml` holds the paper's with sources."""

    papers: ClassVar[tuple[str, ...]] = ("supercalo", "maf", "spline-flows")
    coarse: dict[str, int] | None = None  # cells of each axis, and layers (z), in a coarse voxel
    coarse_showers: str = "drawn"
    energy_flow: FlowSettings = field(default_factory=FlowSettings)
    coarse_flow: FlowSettings = field(default_factory=FlowSettings)
    upsampling_flow: FlowSettings = field(default_factory=FlowSettings)
    layer_energy_unit: str = AUTO
    coarse_energy_unit: str = AUTO
    layer_noise: str = "5keV"
    coarse_noise: str = "5keV"
    fine_noise: str = "0.1keV"
    neighbour_noise: str = "0keV"
    voxels_per_shower: int | None = None
    tile: int = 200
    parts_per_group: int | str | None = None
    energy_training: TrainingSettings = field(default_factory=TrainingSettings)
    coarse_training: TrainingSettings = field(default_factory=TrainingSettings)
    upsampling_training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        require_parts_per_group(self.parts_per_group)
        require_factors(self.factors)
        if self.coarse_showers not in ("drawn", "given"):
            raise UsageError(
                f"coarse_showers '{self.coarse_showers}' is unknown",
                where="model.coarse_showers",
                do="use drawn, or given to train no flow for coarse voxels",
            )
        for name in ("tile", "voxels_per_shower"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(
                    f"{name}={value} is not positive", where=f"model.{name}", do="give 1 or more"
                )
        for name in ("layer_noise", "coarse_noise", "fine_noise"):
            if parse_quantity(getattr(self, name), "energy", where=f"model.{name}") <= 0:
                raise UsageError(
                    f"{name}={getattr(self, name)}: energies of zero have no logarithm",
                    where=f"model.{name}",
                    do="give a noise above zero, such as 0.1keV",
                )

    def require_describable(self, geometry: Geometry, conditions: Sequence[str]) -> None:
        """Layers must share one grid that the factors of `coarse` divide."""
        require_incident_energy("SuperCalo", geometry, conditions)
        if not geometry.is_regular:
            raise UsageError(
                f"SuperCalo joins layers of one grid, and {geometry.describe()}",
                where="model._target_ and the data set's geometry",
                do="train model=l2lflows or model=caloflow, which take layers of any grid",
            )
        require_divisible(geometry, self.factors)

    def voxel_groups(self, geometry: Geometry) -> Mapping[str, Regrouping]:
        """Coarse voxels, whose largest energy is their unit."""
        return {_COARSE_VOXEL: self.coarse_geometry(geometry)[1]}

    def require_statistics(self, geometry: Geometry, statistics: ShowerStatistics) -> None:
        """Energies must stay below their units: their logits live on [0, 1]."""
        largest = {
            "layer_energy": (max(statistics.layer_energy_max), self.layer_unit(statistics)),
            "coarse_energy": (statistics.group_max[_COARSE_VOXEL], self.coarse_unit(statistics)),
        }
        for name, (energy, unit) in largest.items():
            if energy > unit:
                raise DataError(
                    f"a {name.replace('_', ' ')} reaches {format_energy(energy)}, above its unit "
                    f"({format_energy(unit)})",
                    where=f"training data on {geometry.name}; model.{name}_unit",
                    do=f"set model.{name}_unit=auto",
                )

    def stages(
        self, geometry: Geometry, statistics: ShowerStatistics, threshold: float
    ) -> tuple[Stage, ...]:
        """Give the stages energy, coarse and upsampling, of one part each.

        The second is left out where coarse showers are to be given.
        """
        from calo_train.families.supercalo.stages import (
            CoarseStage,
            EnergyStage,
            Preparation,
            UpsamplingStage,
        )

        preparation = Preparation(self, geometry, statistics, threshold)
        coarse = (CoarseStage(preparation),) if self.coarse_showers == "drawn" else ()
        return EnergyStage(preparation), *coarse, UpsamplingStage(preparation)

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
        """Build the full chain from the weights `energy/0`, `coarse/0` and `upsampling/0`."""
        from calo_train.families.place import Place
        from calo_train.families.supercalo.sampler import ChainSampler
        from calo_train.families.supercalo.stages import Preparation

        if self.coarse_showers == "given":
            raise UsageError(
                "this generator refines coarse showers and draws none",
                where="model.coarse_showers=given, when it was trained",
                do="give coarse showers with --coarse FILE",
            )
        preparation = Preparation(self, geometry, statistics, threshold)
        return ChainSampler(preparation, parts, Place(dtype, device))

    @property
    def factors(self) -> dict[str, int]:
        """Cells of each axis, and layers, that a coarse voxel joins; by default voxelisation A."""
        return dict(_VOXELISATION_A if self.coarse is None else self.coarse)

    def coarse_geometry(self, geometry: Geometry) -> tuple[Geometry, Regrouping]:
        """Give the detector of coarse voxels, and which voxels each of them sums."""
        return coarsened(geometry, self.factors)

    def build_refiner(
        self,
        geometry: Geometry,
        statistics: ShowerStatistics,
        threshold: float,
        parts: Mapping[str, Mapping[str, Tensor]],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Refiner:
        """Build the super-resolution of given coarse showers from `energy/0`, `upsampling/0`."""
        from calo_train.families.place import Place
        from calo_train.families.supercalo.sampler import CoarseRefiner
        from calo_train.families.supercalo.stages import Preparation

        preparation = Preparation(self, geometry, statistics, threshold)
        return CoarseRefiner(preparation, parts, Place(dtype, device))

    def grid(self, geometry: Geometry) -> CoarseGrid:
        """Give the coarse voxels of a detector."""
        return CoarseGrid.of(geometry, self.factors)

    def layer_unit(self, statistics: ShowerStatistics) -> float:
        """Give the energy that layer energies are shares of, MeV."""
        if self.layer_energy_unit != AUTO:
            return parse_quantity(
                self.layer_energy_unit, "energy", where="model.layer_energy_unit"
            )
        noise = parse_quantity(self.layer_noise, "energy", where="model.layer_noise")
        return _LAYER_HEADROOM * max(statistics.layer_energy_max) + noise

    def coarse_unit(self, statistics: ShowerStatistics) -> float:
        """Give the energy that coarse voxels are measured in, MeV: the largest, with noise."""
        if self.coarse_energy_unit != AUTO:
            return parse_quantity(
                self.coarse_energy_unit, "energy", where="model.coarse_energy_unit"
            )
        noise = parse_quantity(self.coarse_noise, "energy", where="model.coarse_noise")
        return statistics.group_max[_COARSE_VOXEL] + noise

    def condition_context(self, statistics: ShowerStatistics) -> ConditionContext:
        """Give the map from conditions to context columns."""
        from calo_train.families.conditions import ConditionContext
        from calo_train.families.supercalo.features import incident_energy_context

        return ConditionContext(statistics.condition_range, incident_energy_context)
