"""What long work shows in a log: share done, rate and time left, without control codes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from calo_train import progress as module
from calo_train.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Lines of the progress logger, one for every advance."""
    monkeypatch.setattr(module, "_PLAIN_INTERVAL", 0.0)
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("calo_train.progress")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_a_log_line_says_done_of_total_rate_and_time_left(lines: list[str]) -> None:
    """U4, U5."""
    with Progress("sampling", 200, unit="showers") as shown:
        shown.skip(100)
        shown.advance(50, "note")
    assert "75 %" in lines[-1]
    assert "150/200 showers" in lines[-1]
    assert "showers/s" in lines[-1]
    assert "left" in lines[-1]
    assert "\x1b" not in lines[-1]
    assert "\r" not in lines[-1]


def test_what_an_earlier_process_did_does_not_enter_the_rate() -> None:
    with Progress("sampling", 200, unit="showers") as shown:
        shown.skip(100)
        assert shown.rate == 0
