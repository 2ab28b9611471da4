"""Distilling Flow-2 and Flow-3 into students that draw in one pass a block (2305.11934 Sec. 3).

The half of the loss that starts from base noise takes the contexts of the batch, as published;
Flow-1 has no student.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch

from calo_train.families.contracts import ShowerBatch, Stage
from calo_train.families.icaloflow.networks import (
    build_first_layer_student,
    build_next_layers_student,
)
from calo_train.families.icaloflow.stages import FirstLayerStage, NextLayersStage
from calo_train.nn.distillation import DistillationInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from calo_train.families.contracts import TrainingSettings
    from calo_train.families.icaloflow.family import ICaloFlow
    from calo_train.families.icaloflow.preparation import Preparation
    from calo_train.families.students import StudentSettings
    from calo_train.nn.distillation import DistilledFlow
    from calo_train.nn.inverse_autoregressive import InverseAutoregressiveFlow


class _StudentStage(Stage):
    """The student of one flow, on the same features and contexts."""

    def __init__(
        self,
        teacher: FirstLayerStage | NextLayersStage,
        build_student: Callable[[], InverseAutoregressiveFlow],
        settings: StudentSettings,
        training: TrainingSettings,
    ) -> None:
        self.training = training
        self.part_names = ("0",)
        self.rows_per_shower = teacher.rows_per_shower
        self._teacher = teacher
        self._build_student = build_student
        self._settings = settings
        self._weights: Mapping[str, Tensor] = {}

    def given(self, parts: Mapping[str, Mapping[str, Tensor]]) -> _StudentStage:
        """Give this stage with its trained teacher."""
        stage = copy.copy(self)
        stage._weights = parts[f"{self._teacher.name}/0"]
        return stage

    def build_part(self, index: int) -> DistilledFlow:
        """Build the student beside its teacher."""
        teacher = self._teacher.build_part(index)
        if self._weights:
            teacher.load_state_dict(dict(self._weights))
        return self._settings.distil(self._build_student(), teacher)

    def inputs(
        self, batch: ShowerBatch, parts: Sequence[int], random: torch.Generator
    ) -> Callable[[int], DistillationInput]:
        """Give what the teacher sees, and base noise for the same contexts."""
        seen = self._teacher.inputs(batch, parts, random)(0)
        features = seen.features
        base_noise = torch.randn(
            features.shape, generator=random, device=features.device, dtype=features.dtype
        )
        given = DistillationInput(
            features, seen.context, base_noise, seen.context, seen.rows_per_shower
        )
        return lambda _index: given


class FirstLayerStudentStage(_StudentStage):
    """The student of Flow-2."""

    name: ClassVar[str] = "first_layer_student"
    needs: ClassVar[tuple[str, ...]] = (FirstLayerStage.name,)

    def __init__(self, family: ICaloFlow, preparation: Preparation) -> None:
        num_conditions = preparation.conditions.num_columns
        super().__init__(
            FirstLayerStage(family, preparation),
            partial(build_first_layer_student, family, preparation.geometry, num_conditions),
            family.first_layer_student,
            family.first_layer_student_training,
        )


class NextLayersStudentStage(_StudentStage):
    """The student of Flow-3."""

    name: ClassVar[str] = "next_layers_student"
    needs: ClassVar[tuple[str, ...]] = (NextLayersStage.name,)

    def __init__(self, family: ICaloFlow, preparation: Preparation) -> None:
        num_conditions = preparation.conditions.num_columns
        super().__init__(
            NextLayersStage(family, preparation),
            partial(build_next_layers_student, family, preparation.geometry, num_conditions),
            family.next_layers_student,
            family.next_layers_student_training,
        )
