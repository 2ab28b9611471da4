"""What a training costs, from counters that wrap around and sessions that add up."""

from __future__ import annotations

import pytest

from calo_train.training.cost import Reading, added, cost_since


def test_counter_that_wrapped_around_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAPL counts up to a range and starts again: 90 to 10 of 100 J is 20 J."""
    start = Reading(0.0, 0.0, {"intel-rapl:0": 90.0}, {"intel-rapl:0": 100.0})
    end = Reading(7200.0, 3600.0, {"intel-rapl:0": 10.0}, {"intel-rapl:0": 100.0})
    monkeypatch.setattr(Reading, "now", classmethod(lambda _cls, **_options: end))
    cost = cost_since(start, num_gpus=3)
    assert cost == pytest.approx(
        {"wall_hours": 2.0, "core_hours": 1.0, "gpu_hours": 6.0, "energy_kwh": 20 / 3.6e6}
    )


def test_machine_without_counters_tells_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Reading(0.0, 0.0, {}, {})
    monkeypatch.setattr(Reading, "now", classmethod(lambda _cls, **_options: start))
    assert "energy_kwh" not in cost_since(start, num_gpus=0)


def test_sessions_add_up() -> None:
    first = added({}, {"wall_hours": 1.0, "core_hours": 2.0})
    assert added(first, {"wall_hours": 0.5, "energy_kwh": 3.0}) == {
        "wall_hours": 1.5, "core_hours": 2.0, "energy_kwh": 3.0
    }  # fmt: skip
