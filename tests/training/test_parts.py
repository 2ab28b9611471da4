"""One part in training: which epoch is kept, when it stops, how its rate moves."""

from __future__ import annotations

import math

import pytest
import torch

from calo_train.families.contracts import TrainingSettings
from calo_train.training.parts import Part


def _part(**settings: object) -> Part:
    torch.manual_seed(0)
    return Part("0", torch.nn.Linear(2, 1), TrainingSettings(**settings), num_steps=10)  # type: ignore[arg-type]


def test_validation_that_is_not_finite_never_becomes_best() -> None:
    """R13: counted, and the last finite best stays."""
    part = _part()
    assert part.judge(3.0, epoch=0)
    assert not part.judge(math.nan, epoch=1)
    assert not part.judge(math.inf, epoch=2)
    assert (part.progress.best_loss, part.progress.best_epoch) == (3.0, 0)
    assert part.progress.num_bad_validations == 2
    assert part.judge(2.0, epoch=3)


def test_best_weights_are_those_of_the_best_epoch() -> None:
    part = _part()
    part.judge(1.0, epoch=0)
    kept = part.best_weights["weight"].clone()
    with torch.no_grad():
        part.flow.weight.add_(1)  # type: ignore[operator, union-attr]
    part.judge(2.0, epoch=1)
    assert torch.equal(part.best_weights["weight"], kept)


def test_part_stops_after_its_patience() -> None:
    part = _part(patience=2)
    for epoch, loss in enumerate([3.0, 2.0, 2.5, 2.5]):
        assert not part.progress.is_stopped
        part.judge(loss, epoch)
    assert part.progress.is_stopped


@pytest.mark.parametrize("schedule", ["exponential", "cosine", "onecycle"])
def test_schedule_ends_at_its_final_rate(schedule: str) -> None:
    part = _part(schedule=schedule, learning_rate=1e-2, final_learning_rate=1e-4)
    rates = []
    for _ in range(10):
        part.optimiser.step()
        part.after_step()
        rates.append(part.learning_rate)
    assert rates[-1] == pytest.approx(1e-4, rel=0.01)
    assert max(rates) <= 1e-2 * 1.001


def test_average_of_weights_is_what_is_judged() -> None:
    part = _part(ema_decay=0.9)
    before = part.judged_flow.weight.clone()  # type: ignore[operator, union-attr]
    with torch.no_grad():
        part.flow.weight.add_(1)  # type: ignore[operator, union-attr]
    part.optimiser.step()  # without gradients it changes nothing; torch wants it before a schedule
    part.after_step()
    torch.testing.assert_close(part.judged_flow.weight, before + 0.1)  # type: ignore[arg-type]


def test_state_brings_a_part_back() -> None:
    first, second = _part(schedule="onecycle"), _part(schedule="onecycle")
    first.flow(torch.ones(1, 2)).sum().backward()
    first.optimiser.step()
    first.after_step()
    first.judge(1.0, epoch=0)
    second.load_state(first.state())
    assert torch.equal(first.flow.weight, second.flow.weight)  # type: ignore[arg-type]
    assert second.learning_rate == first.learning_rate
    assert second.progress == first.progress
