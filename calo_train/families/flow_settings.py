"""The shape of a flow as a family's yaml gives it; torch is imported when one is built."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from calo_train.nn.flows import MaskedSplineFlow

PERMUTATIONS = ("random", "reverse", "random_after", "alternating")


@dataclass
class FlowSettings:
    """Shape of a flow of masked autoregressive spline blocks (`calo_train.nn.flows`)."""

    num_blocks: int = 4
    num_hidden_layers: int = 1
    hidden_features: int = 128
    num_bins: int = 8
    tail_bound: float = 14.0
    permutation: str = "reverse"
    min_bin: float = 1e-6
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.permutation not in PERMUTATIONS:
            raise UsageError(
                f"permutation '{self.permutation}' is unknown",
                where="model.<flow>.permutation",
                do=f"use one of {', '.join(PERMUTATIONS)}",
            )
        for name in ("num_blocks", "hidden_features", "tail_bound", "min_bin"):
            if getattr(self, name) <= 0:
                raise UsageError(
                    f"{name}={getattr(self, name)} is not positive",
                    where=f"model.<flow>.{name}",
                    do="give a value above zero",
                )

    def shape(self) -> MaskedSplineFlow:
        """Give what builds such flows."""
        from calo_train.nn.flows import MaskedSplineFlow

        return MaskedSplineFlow(**asdict(self))
