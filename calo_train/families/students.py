"""Students that draw in one pass a block, as families' yaml gives them (CaloFlow II, 2110.11377).

What families with students share: which sampler draws, the student's own settings, how it is built
and distilled, and how it is packed. torch is imported when something is built.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from nflows.flows import Flow
    from torch import Tensor

    from calo_train.families.flow_settings import FlowSettings
    from calo_train.nn.distillation import DistilledFlow
    from calo_train.nn.inverse_autoregressive import InverseAutoregressiveFlow, PackedInverseFlow

TEACHER, STUDENT = "teacher", "student"
_TERMS = ("fully_guided", "end_points")
_PREFIX = "student."  # before the names of a student's weights, beside its teacher in training


@dataclass
class StudentSettings:
    """A student's own width and how it learns; all else is its teacher's."""

    num_hidden_layers: int = 1
    hidden_features: int = 128
    dropout: float = 0.0
    terms: str = "fully_guided"  # or end_points
    data_weight: float = 0.5  # beta

    def __post_init__(self) -> None:
        if self.terms not in _TERMS:
            raise UsageError(
                f"terms '{self.terms}' is unknown",
                where="model.<student>.terms",
                do=f"use {' or '.join(_TERMS)}",
            )
        if not 0 <= self.data_weight <= 1:
            raise UsageError(
                f"data_weight={self.data_weight} is not in [0, 1]",
                where="model.<student>.data_weight",
                do="give the weight of the half that starts from data; the paper has 0.5",
            )

    def build(
        self,
        teacher: FlowSettings,
        features: int,
        context_features: int,
        *,
        groups: Sequence[int] | None = None,
    ) -> InverseAutoregressiveFlow:
        """Build an untrained chain like that of `teacher`, with networks of its own width."""
        from calo_train.nn.inverse_autoregressive import InverseAutoregressiveFlow

        shape = replace(
            teacher,
            num_hidden_layers=self.num_hidden_layers,
            hidden_features=self.hidden_features,
            dropout=self.dropout,
        )
        flow = shape.shape().build(features, context_features, groups=groups)
        return InverseAutoregressiveFlow(flow)

    def distil(self, student: InverseAutoregressiveFlow, teacher: Flow) -> DistilledFlow:
        """Give the student as it trains, beside its teacher."""
        from calo_train.nn.distillation import DistillationTerms, DistilledFlow

        return DistilledFlow(
            student, teacher, terms=DistillationTerms(self.terms), data_weight=self.data_weight
        )


def require_sampler(name: str, *, where: str) -> None:
    """Raise UsageError unless this is the teacher or the student."""
    if name not in (TEACHER, STUDENT):
        raise UsageError(
            f"sampler '{name}' is unknown", where=where, do=f"use {TEACHER} or {STUDENT}"
        )


def require_student(parts: Mapping[str, Mapping[str, Tensor]], part: str) -> None:
    """Raise UsageError unless this part of a student was trained."""
    if part not in parts:
        raise UsageError(
            "this generator has no student: none was trained",
            where="--sampler student",
            do="draw with --sampler teacher, or train a run with model.sampler=student",
        )


def pack_student(
    student: InverseAutoregressiveFlow,
    parts: Mapping[str, Mapping[str, Tensor]],
    part: str,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> PackedInverseFlow:
    """Pack a student with the weights of its part; UsageError where none was trained."""
    from calo_train.nn.inverse_autoregressive import PackedInverseFlow

    require_student(parts, part)
    weights = parts[part].items()
    student.load_state_dict({name.removeprefix(_PREFIX): value for name, value in weights})
    return PackedInverseFlow(student.eval(), dtype=dtype, device=device)
