"""Flows of published calorimeter models, with their published shapes and seeded weights.

Features, contexts, blocks and widths are those of the released codes; `weights` is the published
count, which a built flow must have. Ours are: every embedding network is left out (the flow takes
the context behind it), the permutation before each block is of one kind (published CaloFlow,
iCaloFlow and SuperCalo alternate two), and the weights, since trained ones are not published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from calo_train.nn.flows import MaskedSplineFlow, count_parameters

if TYPE_CHECKING:
    from nflows.flows import Flow

STIRRED = 0.03  # width of the normal numbers added to nflows' initial weights: curved splines
NUM_BINS = 8


@dataclass(frozen=True)
class FlowCase:
    """A flow of D features with a context of C: MADEs of some hidden layers of one width."""

    name: str
    title: str
    features: int
    context: int
    num_mades: int
    num_hidden_layers: int  # after the first
    width: int
    tail_bound: float
    min_bin: float
    permutation: str
    weights: int | None  # published count; None for shapes of our own
    source: str

    @property
    def num_passes(self) -> int:
        """Network passes of an inverse that takes one for each feature of each MADE."""
        return self.num_mades * self.features

    @property
    def num_parameters(self) -> int:
        """Numbers that define the spline of one feature."""
        return 3 * NUM_BINS - 1

    def build(self, dtype: torch.dtype) -> Flow:
        """Build the flow; weights are drawn in float64, so both precisions hold the same."""
        torch.manual_seed(0)
        shape = MaskedSplineFlow(
            self.num_mades,
            self.num_hidden_layers,
            self.width,
            NUM_BINS,
            self.tail_bound,
            self.permutation,
            self.min_bin,
            0.0,
        )
        flow = shape.build(self.features, self.context).double().eval()
        if self.weights is not None and count_parameters(flow) != self.weights:
            raise SystemExit(
                f"{self.name} has {count_parameters(flow)} weights, not the published"
            )
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.add_(STIRRED * torch.randn_like(parameter))
        return flow.to(dtype)

    def draw(self, batch: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw base noise (batch, D) and a context (batch, C)."""
        random = torch.Generator().manual_seed(batch)
        noise = torch.randn(batch, self.features, generator=random, dtype=torch.float64)
        context = torch.randn(batch, self.context, generator=random, dtype=torch.float64)
        return noise.to(dtype), context.to(dtype)


CASES = (
    FlowCase(
        "l2lflows-energy", "L2LFlows, layer energies",
        30, 1, 6, 1, 64, 14.0, 1e-6, "random", 306_732,
        "arXiv:2302.11594 Tab. 4",
    ),
    FlowCase(
        "l2lflows-causal", "L2LFlows, voxels of a layer",
        100, 64, 4, 1, 128, 14.0, 1e-6, "reverse", 1_507_760 - 169_920,
        "arXiv:2302.11594 Tab. 4, less the weights of the embedding network",
    ),
    FlowCase(
        "supercalo-upsampler", "SuperCalo A, a coarse voxel",
        10, 31, 8, 2, 128, 14.0, 1e-3, "random", 545_584,
        "arXiv:2308.11700, code Ian-Pang/supercalo",
    ),
    FlowCase(
        "icaloflow-layer", "iCaloFlow Flow-3, a layer",
        144, 191, 8, 2, 256, 14.0, 1e-3, "random", 8_552_320,
        "arXiv:2305.11934, code claudius-krause/inductive-caloflow, data set 2",
    ),
    FlowCase(
        "caloflow", "CaloFlow Flow II, teacher",
        504, 4, 8, 1, 378, 14.0, 1e-3, "random", 37_835_280,
        "arXiv:2106.05285 and its code",
    ),
    FlowCase(
        "supercalo-coarse", "SuperCalo Flow-2, coarse voxels",
        648, 10, 8, 1, 648, 6.0, 1e-3, "random", 84_167_424,
        "arXiv:2308.11700, code Ian-Pang/supercalo",
    ),
)  # fmt: skip


def square_case(features: int) -> FlowCase:
    """Give one MADE as wide as it has features, with a context of 16: for the growth with D."""
    return FlowCase(
        f"D = {features}", "one MADE, H = D", features, 16, 1, 1, features, 14.0, 1e-3, "reverse",
        None, "ours",
    )  # fmt: skip
