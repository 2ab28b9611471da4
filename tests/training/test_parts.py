"""Parts in training: which epoch is kept, when one stops, and steps as each would take alone."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from calo_train.families.contracts import PartInput, TrainingSettings
from calo_train.nn.flows import MaskedSplineFlow, embedding_network
from calo_train.nn.stacked_flows import SingleFlow
from calo_train.training.optimiser import GroupOptimiser, StepPlan
from calo_train.training.parts import JointParts, Part

# Two Adam steps of 1e-2 in float64: gradients agree to 1e-13 of their size, and Adam divides a
# gradient by its own size, so that weights agree to some 1e-13; where a gradient is near Adam's
# 1e-8 the quotient loses as many digits as the gradient.
STEP_TOLERANCE = 1e-9


def _lone_parts(**settings: object) -> JointParts:
    torch.manual_seed(0)
    training = TrainingSettings(**settings)  # type: ignore[arg-type]
    (parts,) = JointParts.build(
        [Part(0, "0", patience=training.patience)], [nn.Linear(2, 1)], training
    )
    return parts


def _weight(flows: nn.Module) -> Tensor:
    return next(flows.parameters())


def test_validation_that_is_not_finite_never_becomes_best() -> None:
    """R13: counted, and the last finite best stays."""
    part = Part(0, "0")
    assert part.judge(3.0, epoch=0)
    assert not part.judge(math.nan, epoch=1)
    assert not part.judge(math.inf, epoch=2)
    assert (part.progress.best_loss, part.progress.best_epoch) == (3.0, 0)
    assert part.progress.num_bad_validations == 2
    assert part.judge(2.0, epoch=3)


def test_best_weights_are_those_of_the_best_epoch() -> None:
    parts = _lone_parts()
    kept = _weight(parts.flows).detach().clone()
    parts.judge([1.0], epoch=0)
    with torch.no_grad():
        _weight(parts.flows).add_(1)
    parts.judge([2.0], epoch=1)
    assert torch.equal(parts.parts[0].best_weights["weight"], kept)


def test_part_stops_after_its_patience() -> None:
    part = Part(0, "0", patience=2)
    for epoch, loss in enumerate([3.0, 2.0, 2.5, 2.5]):
        assert not part.progress.is_stopped
        part.judge(loss, epoch)
    assert part.progress.is_stopped


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "onecycle"])
def test_schedule_ends_at_its_final_rate(schedule: str) -> None:
    settings = TrainingSettings(schedule=schedule, learning_rate=1e-2, final_learning_rate=1e-4)
    optimiser = GroupOptimiser([_lone_parts()], settings, StepPlan(1, 10, {}))
    rates = []
    for _ in range(10):
        optimiser.step()
        rates.append(optimiser.learning_rate)
    assert rates[-1] == pytest.approx(1e-4, rel=0.01)
    assert max(rates) <= 1e-2 * 1.001


def test_average_of_weights_is_what_is_judged() -> None:
    parts = _lone_parts(ema_decay=0.9)
    before = _weight(parts.judged_flows).clone()
    with torch.no_grad():
        _weight(parts.flows).add_(1)
    parts.move_average(0.9)
    torch.testing.assert_close(_weight(parts.judged_flows), before + 0.1)


CLIP = 4.0  # between the norms of the flows below
SETTINGS = TrainingSettings(
    learning_rate=1e-2, schedule="onecycle", weight_decay=0.1, gradient_clip=CLIP, ema_decay=0.9
)
WIDTHS = (3, 5, 4)  # columns of context


def _flows() -> list[nn.Module]:
    """Three stackable flows, and last one that is trained by itself."""
    torch.manual_seed(1)
    stackable = MaskedSplineFlow(2, 1, 8, 5, 3.0, "random", 1e-3, 0.0)
    other = MaskedSplineFlow(1, 1, 8, 5, 3.0, "random", 1e-3, 1e-12)
    flows = [stackable.build(6, 4, embedding_network(width, (6,), 4)) for width in WIDTHS]
    return [flow.double() for flow in (*flows, other.build(2, 3))]


def _inputs(step: int) -> list[PartInput]:
    random = torch.Generator().manual_seed(step)

    def normal(columns: int) -> Tensor:
        return torch.randn(9, columns, generator=random, dtype=torch.float64)

    return [*(PartInput(normal(6), normal(width)) for width in WIDTHS),
            PartInput(normal(2), normal(3))]  # fmt: skip


def _take_step(stacks: list[JointParts], optimiser: GroupOptimiser, step: int) -> list[Tensor]:
    """Take a step as a fit does; give the norms of the gradients by part."""
    inputs = _inputs(step)
    optimiser.zero_grad()
    norms: dict[int, Tensor] = {}
    for stack in stacks:
        losses = stack.losses([inputs[part.index] for part in stack.parts])
        (losses.sum() / losses.shape[1]).backward()
        of_stack = stack.clip_gradients(SETTINGS.gradient_clip)
        norms |= {part.index: norm for part, norm in zip(stack.parts, of_stack, strict=True)}
    optimiser.step()
    for stack in stacks:
        stack.move_average(SETTINGS.ema_decay or 0.0)
    return [norms[index] for index in sorted(norms)]


def _joint(flows: list[nn.Module]) -> tuple[list[JointParts], GroupOptimiser]:
    parts = [Part(index, str(index)) for index in range(len(flows))]
    stacks = JointParts.build(parts, copy.deepcopy(flows), SETTINGS)
    return stacks, GroupOptimiser(stacks, SETTINGS, StepPlan(1, 4, {}))


def _assert_weights(stacks: list[JointParts], flows: dict[str, nn.Module], kind: str) -> None:
    for stack in stacks:
        joint = stack.flows if kind == "flow" else stack.judged_flows
        for part, state in zip(stack.parts, joint.states(), strict=True):
            expected = flows[part.name].state_dict()
            assert state.keys() == expected.keys()
            for name, value in state.items():
                torch.testing.assert_close(
                    value, expected[name], rtol=STEP_TOLERANCE, atol=STEP_TOLERANCE
                )


def test_joint_steps_equal_the_steps_of_plain_torch() -> None:
    """One clipping, AdamW, schedule and average a flow; some norms are clipped, some not."""
    flows = _flows()
    stacks, optimiser = _joint(flows)
    assert [len(stack.parts) for stack in stacks] == [3, 1]
    assert isinstance(stacks[1].flows, SingleFlow)
    averages = copy.deepcopy(flows)
    optimisers = [
        torch.optim.AdamW(flow.parameters(), lr=1e-2, weight_decay=0.1) for flow in flows
    ]
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            adam, max_lr=1e-2, total_steps=5, div_factor=25.0, final_div_factor=1e-2 / 25 / 1e-6
        )
        for adam in optimisers
    ]
    all_norms = []
    for step in range(2):
        norms = _take_step(stacks, optimiser, step)
        for number, (flow, one) in enumerate(zip(flows, _inputs(step), strict=True)):
            optimisers[number].zero_grad()
            (-flow.log_prob(one.features, context=one.context).mean()).backward()  # type: ignore[operator]
            norm = nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
            torch.testing.assert_close(norms[number], norm, rtol=STEP_TOLERANCE, atol=0)
            optimisers[number].step()
            schedules[number].step()
            with torch.no_grad():
                for kept, new in zip(
                    averages[number].parameters(), flow.parameters(), strict=True
                ):
                    kept.mul_(0.9).add_(0.1 * new)
            all_norms.append(float(norm))
    assert min(all_norms) < CLIP < max(all_norms)
    names = [str(number) for number in range(len(flows))]
    _assert_weights(stacks, dict(zip(names, flows, strict=True)), "flow")
    _assert_weights(stacks, dict(zip(names, averages, strict=True)), "average")


def test_parts_that_stay_train_on_as_if_none_had_stopped() -> None:
    """Weights, averages and Adam's moments survive the smaller stack."""
    whole, whole_optimiser = _joint(_flows())
    stacks, optimiser = _joint(_flows())
    _take_step(whole, whole_optimiser, 0)
    _take_step(stacks, optimiser, 0)
    stacks[0].parts[1].progress.is_stopped = True
    moments = optimiser.moments(stacks)
    stacks = [rest for stack in stacks if (rest := stack.training_parts()) is not None]
    optimiser.follow(stacks, moments)
    assert [part.index for stack in stacks for part in stack.parts] == [0, 2, 3]
    for step in (1, 2):
        _take_step(whole, whole_optimiser, step)
        _take_step(stacks, optimiser, step)
    expected = {
        part.name: state
        for stack in whole
        for part, state in zip(stack.parts, stack.judged_flows.states(), strict=True)
    }
    for stack in stacks:
        for part, state in zip(stack.parts, stack.judged_flows.states(), strict=True):
            for name, value in state.items():
                torch.testing.assert_close(
                    value, expected[part.name][name], rtol=STEP_TOLERANCE, atol=STEP_TOLERANCE
                )
