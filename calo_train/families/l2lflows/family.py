"""L2LFlows as a family: its hyperparameters, its two stages and its sampler.

p(shower | conditions) = p(E_0..E_L | conditions) prod_i p(I_i | I_{i-1}.., E_i, conditions): an
energy distribution flow and one causal flow for each layer (2302.11594). Nothing here knows a
detector beyond its Geometry; torch is imported when something is built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
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
from calo_train.quantities import MEV_PER_GEV, format_energy, parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from calo_train.families.conditions import ConditionContext
    from calo_train.geometry import Geometry
    from calo_train.showers.statistics import ShowerStatistics

_HEADROOM = 1.1  # a further shower may exceed the training data's largest layer


@dataclass
class L2LFlows(Family):
    """Hyperparameters of L2LFlows; `conf/model/l2lflows.yaml` holds the paper's with sources."""

    papers: ClassVar[tuple[str, ...]] = ("l2lflows", "maf", "spline-flows")

    energy_flow: FlowSettings = field(default_factory=FlowSettings)
    causal_flow: FlowSettings = field(default_factory=FlowSettings)
    num_previous_layers: int = 5
    embedding_hidden: list[int] = field(default_factory=lambda: [256, 128])
    embedding_features: int = 64
    layer_energy_unit: str = "auto"
    voxel_max: str = "layer"
    voxel_noise: str = "1keV"
    layer_noise_mean: str = "1keV"
    layer_noise_width: str = "0.2keV"
    tile: int = 1000
    parts_per_group: int | str | None = None
    energy_training: TrainingSettings = field(default_factory=TrainingSettings)
    causal_training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        require_parts_per_group(self.parts_per_group)
        if self.voxel_max not in ("layer", "global"):
            raise UsageError(
                f"voxel_max '{self.voxel_max}' is unknown",
                where="model.voxel_max",
                do="use layer or global",
            )
        if self.num_previous_layers < 0 or self.tile < 1:
            raise UsageError(
                "num_previous_layers must not be negative and tile must be at least 1",
                where="model.num_previous_layers, model.tile",
                do="the paper uses 5 previous layers",
            )

    def require_describable(self, geometry: Geometry, conditions: Sequence[str]) -> None:
        """Any layered detector will do; the incident energy must be among the conditions."""
        require_incident_energy("L2LFlows", geometry, conditions)

    def require_statistics(self, geometry: Geometry, statistics: ShowerStatistics) -> None:
        """Layer energies must stay below their unit: their logit lives on [0, 1] (App. B.1)."""
        unit = self.energy_unit(statistics)
        largest = max(statistics.layer_energy_max)
        if largest >= unit:
            layer = statistics.layer_energy_max.index(largest)
            raise DataError(
                f"layer {layer} reaches {format_energy(largest)}, above the unit of layer "
                f"energies ({format_energy(unit)})",
                where=f"training data on {geometry.name}; model.layer_energy_unit",
                do=f"set model.layer_energy_unit=auto, or {_HEADROOM * largest:.4g}MeV",
            )

    def stages(
        self, geometry: Geometry, statistics: ShowerStatistics, threshold: float
    ) -> tuple[Stage, ...]:
        """Give the energy stage (one part) and the causal stage (one part a layer)."""
        from calo_train.families.l2lflows.stages import CausalStage, EnergyStage, Preparation

        preparation = Preparation.of(self, geometry, statistics, threshold)
        return EnergyStage(self, preparation), CausalStage(self, preparation)

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
        """Build the sampler from the weights `energy/0` and `causal/0`, `causal/1`, ..."""
        from calo_train.families.l2lflows.sampler import L2LFlowsSampler
        from calo_train.families.l2lflows.stages import Preparation

        preparation = Preparation.of(self, geometry, statistics, threshold)
        return L2LFlowsSampler(self, preparation, parts, dtype=dtype, device=device)

    def energy_unit(self, statistics: ShowerStatistics) -> float:
        """Give what layer energies are shares of, in MeV.

        `auto` is the paper's 1 GeV, or where a training layer reaches it a little more than that.
        """
        if self.layer_energy_unit != "auto":
            return parse_quantity(
                self.layer_energy_unit, "energy", where="model.layer_energy_unit"
            )
        largest = max(statistics.layer_energy_max)
        return MEV_PER_GEV if largest < MEV_PER_GEV else _HEADROOM * largest

    def condition_context(self, statistics: ShowerStatistics) -> ConditionContext:
        """Give the map from conditions to context columns."""
        from calo_train.families.conditions import ConditionContext
        from calo_train.families.l2lflows.features import incident_energy_context

        return ConditionContext(statistics.condition_range, incident_energy_context)
