"""Where the permutations of a flow stand, and in which groups they act."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from nflows.transforms.permutations import Permutation

from calo_train.nn import incremental_inverse
from calo_train.nn.flows import MaskedSplineFlow
from calo_train.nn.stacked_flows import StackedFlows, join_flows

if TYPE_CHECKING:
    from nflows.flows import Flow

# Four splines at slopes of order one, in float64: rounding grows by a few orders at most.
INVERSE_ATOL = 1e-9


def _flow(permutation: str, groups: list[int] | None = None, context: int = 2) -> Flow:
    torch.manual_seed(3)
    shape = MaskedSplineFlow(4, 1, 12, 5, 14.0, permutation, 1e-6, 0.0)
    return shape.build(6, context, groups=groups).double().eval()


def _places(flow: Flow) -> str:
    """Write P for a permutation and M for a block, in order."""
    steps = flow._transform._transforms
    return "".join("P" if isinstance(step, Permutation) else "M" for step in steps)


@pytest.mark.parametrize(
    ("permutation", "places"),
    [
        ("random", "PMPMPMPM"),  # L2LFlows
        ("reverse", "PMPMPMPM"),
        ("random_after", "MPMPMPMP"),  # CaloFlow, layer energies
        ("alternating", "MPMPMPM"),  # CaloFlow, iCaloFlow, SuperCalo, voxels
    ],
)
def test_permutations_stand_where_the_papers_put_them(permutation: str, places: str) -> None:
    assert _places(_flow(permutation)) == places


def test_alternating_permutations_begin_with_a_reversal() -> None:
    orders = [
        step._permutation.tolist()
        for step in _flow("alternating")._transform._transforms
        if isinstance(step, Permutation)
    ]
    reversal = [5, 4, 3, 2, 1, 0]
    assert orders[0] == orders[2] == reversal
    assert orders[1] != reversal


def test_features_stay_in_their_group() -> None:
    """CaloFlow permutes inside calorimeter layers: no voxel changes layer."""
    sizes = [1, 3, 2]
    group_of = [0, 1, 1, 1, 2, 2]
    for permutation in ("random", "reverse", "alternating"):
        for step in _flow(permutation, sizes)._transform._transforms:
            if isinstance(step, Permutation):
                assert [group_of[source] for source in step._permutation.tolist()] == group_of


@pytest.mark.parametrize("permutation", ["random_after", "alternating"])
@pytest.mark.parametrize("context", [0, 2])
def test_stacks_and_inverse_follow_every_order(permutation: str, context: int) -> None:
    flow = _flow(permutation, [2, 4], context)
    random = torch.Generator().manual_seed(1)
    features = torch.randn(50, 6, generator=random, dtype=torch.float64)
    columns = torch.randn(50, 2, generator=random, dtype=torch.float64) if context else None
    ((_, stack),) = join_flows([flow])
    assert isinstance(stack, StackedFlows)
    with torch.no_grad():
        expected = flow.log_prob(features, context=columns)
        torch.testing.assert_close(stack.log_prob([features], [columns])[0], expected)
        noise, _ = flow._transform(features, context=columns)
    back, _ = incremental_inverse(flow, noise, columns)
    torch.testing.assert_close(back, features, rtol=0.0, atol=INVERSE_ATOL)
