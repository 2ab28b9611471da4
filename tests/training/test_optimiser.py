"""Learning rates at known steps, and which batches move the weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from calo_train.errors import UsageError
from calo_train.families.contracts import PartInput, TrainingSettings
from calo_train.training.optimiser import GroupOptimiser, StepPlan
from calo_train.training.parts import JointParts, Part

RATE_RTOL = 1e-12  # products of a few float64 numbers


class _Square(nn.Module):
    """A density by name only: the loss is the squared distance from one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def log_prob(self, features: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        assert context is None
        return -(features - self.weight).square().sum(dim=1)


def _parts(settings: TrainingSettings) -> list[JointParts]:
    return JointParts.build([Part(0, "0")], [_Square()], settings)


def _rates(settings: TrainingSettings, plan: StepPlan) -> list[float]:
    """Give the learning rate of every step."""
    stacks = _parts(settings)
    optimiser = GroupOptimiser(stacks, settings, plan)
    rates = []
    for _ in range(plan.num_steps):
        rates.append(optimiser.learning_rate)
        stacks[0].losses([PartInput(torch.ones(1, 1, dtype=torch.float64), None)]).sum().backward()
        optimiser.step()
    return rates


def test_multistep_multiplies_the_rate_at_its_epochs() -> None:
    settings = TrainingSettings(learning_rate=1.0, schedule="multistep", milestones=[1, 3])
    rates = _rates(settings, StepPlan(4, 2, {}))
    assert rates == pytest.approx([1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25], rel=RATE_RTOL)


def test_cyclic_rate_halves_its_peaks() -> None:
    """Triangular2: 5e-5 to the peak in half a cycle, and half as high above it in the next."""
    low, peak = 5e-5, 2e-3
    settings = TrainingSettings(
        learning_rate=peak, schedule="cyclic", lowest_learning_rate=low, half_cycle=2.0
    )
    rates = _rates(settings, StepPlan(10, 3, {}))
    assert [rates[0], rates[6], rates[12], rates[18]] == pytest.approx(
        [low, peak, low, low + (peak - low) / 2], rel=RATE_RTOL
    )


def test_three_phase_cycle_has_its_published_corners() -> None:
    """iCaloFlow: from peak/div up to the peak, down to the start, then to the final rate."""
    settings = TrainingSettings(
        learning_rate=1e-3, schedule="onecycle_three_phase", warmup_share=0.4,
        start_divisor=50.0, final_learning_rate=2e-6,
    )  # fmt: skip
    rates = _rates(settings, StepPlan(1, 1000, {}))
    peak = max(range(len(rates)), key=rates.__getitem__)
    assert rates[0] == pytest.approx(2e-5, rel=1e-9)
    assert rates[peak] == pytest.approx(1e-3, rel=1e-4)
    assert abs(peak - 400) <= 1
    assert rates[2 * peak] == pytest.approx(2e-5, rel=1e-3)
    assert rates[-1] == pytest.approx(2e-6, rel=0.01)


@given(st.integers(1, 5), st.integers(1, 9), st.dictionaries(st.integers(0, 4), st.integers(1, 4)))
def test_every_batch_belongs_to_one_step(
    num_epochs: int, num_batches: int, windows: dict[int, int]
) -> None:
    plan = StepPlan(num_epochs, num_batches, windows)
    batches = [(epoch, batch) for epoch in range(num_epochs) for batch in range(num_batches)]
    starts = [plan.is_start(*one) for one in batches]
    ends = [plan.is_step(*one) for one in batches]
    assert sum(starts) == sum(ends) == plan.num_steps
    assert starts[1:] == ends[:-1]  # a step follows each end
    for epoch in range(num_epochs):
        begun = [first for first in windows if first <= epoch]
        window = windows[max(begun)] if begun else 1
        assert plan.steps_before(epoch + 1) - plan.steps_before(epoch) == math.ceil(
            num_batches / window
        )


def test_window_below_one_batch_is_refused() -> None:
    with pytest.raises(UsageError, match="batches_per_step"):
        TrainingSettings(batches_per_step={0: 0})


def test_rows_of_a_shower_are_summed() -> None:
    """Three rows a shower: the loss of a shower is the sum of theirs, in their order."""
    (parts,) = _parts(TrainingSettings())
    features = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]], dtype=torch.float64)
    losses = parts.losses([PartInput(features, None, rows_per_shower=3)])
    assert losses.tolist() == [[1 + 4 + 9, 16 + 25 + 36]]


def test_counts_of_steps_lie_where_the_weights_are() -> None:
    """Lightning moves the moments of a resumed training to a GPU and leaves the counts behind."""
    from lightning.fabric.utilities.optimizer import _optimizer_to_device

    settings = TrainingSettings()
    stacks = _parts(settings)
    optimiser = GroupOptimiser(stacks, settings, StepPlan(2, 2, {}))
    stacks[0].losses([PartInput(torch.ones(1, 1, dtype=torch.float64), None)]).sum().backward()
    optimiser.step()
    elsewhere = torch.device("meta")
    of_weight = nn.Parameter(torch.empty(1, device=elsewhere))
    (state,) = optimiser.adam.state.values()
    optimiser.adam.state.clear()
    optimiser.adam.state[of_weight] = state
    _optimizer_to_device(optimiser.adam, elsewhere)
    assert state["exp_avg"].device == elsewhere
    assert state["step"].device != elsewhere
    optimiser.bring_counts()
    assert state["step"].device == elsewhere
