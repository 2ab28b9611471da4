"""Where and in which precision a sampler computes; flows are packed for it, numbers brought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.nn import PackedFlow, pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from nflows.flows import Flow
    from torch import Tensor

_BLOCK = 1 << 17  # voxels that pass through all steps of the end together


@dataclass(frozen=True)
class Place:
    """Precision and device of the computation."""

    dtype: torch.dtype
    device: torch.device

    def pack(self, flow: Flow, weights: Mapping[str, Tensor]) -> PackedFlow:
        """Pack a flow with trained weights."""
        flow.load_state_dict(dict(weights))
        return pack(flow.eval(), dtype=self.dtype, device=self.device)

    def take(self, values: Tensor) -> Tensor:
        """Bring numbers here."""
        return values.to(self.device, self.dtype)

    def take_all(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Bring named numbers, such as conditions, here."""
        return {name: self.take(column) for name, column in values.items()}

    def blocks(self, tile: int, num_voxels: int) -> Iterator[slice]:
        """Cut a tile so that a block stays in the processor's cache; a GPU takes it whole."""
        num_rows = max(_BLOCK // num_voxels, 1) if self.device.type == "cpu" else tile
        return (slice(first, first + num_rows) for first in range(0, tile, num_rows))
