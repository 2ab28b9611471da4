"""Vector mathematics against numpy in extended precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from vector_functions import applied, compiled, plain_machine

from calo_train.kernels import mathematics
from calo_train.kernels.compiler import this_machine

if TYPE_CHECKING:
    from collections.abc import Callable

    from calo_train.kernels.compiler import Machine
    from calo_train.kernels.values import Vector

UNITS = 4.0  # in the last place; seen are 2.4

CASES = {
    "exp_of_negative": (np.exp, -60.0, 0.0),
    "log": (np.log, 1e-30, 1e30),
    "softplus": (lambda x: np.logaddexp(np.longdouble(0), x), -60.0, 60.0),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), -60.0, 60.0),
}


@pytest.mark.parametrize("machine", [this_machine(), plain_machine()], ids=["this", "plain"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_function_agrees_with_numpy_to_the_last_digits(
    name: str, precision: str, machine: Machine
) -> None:
    """On this processor and on one without AVX and FMA."""
    exact, low, high = CASES[name]
    random = np.random.default_rng(1)
    spread = random.uniform(low, high, 1 << 16)
    if name == "log":
        near_one = 1 + random.normal(0, 1e-3, 1 << 12)
        spread = np.concatenate([10 ** random.uniform(-30, 30, 1 << 16), near_one])
    else:
        spread[:4] = [high, low, -1e-8, -1e-3]
    values = spread.astype(precision)
    found = applied(compiled(getattr(mathematics, name), precision, machine), values)
    expected = exact(values.astype(np.longdouble))
    error = np.abs(found - expected) / np.maximum(np.abs(expected), np.finfo(precision).tiny)
    assert error.max() < UNITS * np.finfo(precision).eps


def _cosine(turns: Vector) -> Vector:
    return mathematics.cos_and_sin_of_turns(turns)[0]


def _sine(turns: Vector) -> Vector:
    return mathematics.cos_and_sin_of_turns(turns)[1]


@pytest.mark.parametrize("machine", [this_machine(), plain_machine()], ids=["this", "plain"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("function", "exact"), [(_cosine, np.cos), (_sine, np.sin)])
def test_cosine_and_sine_of_turns_agree_with_numpy(
    function: Callable[[Vector], Vector],
    exact: Callable[[Any], Any],
    precision: str,
    machine: Machine,
) -> None:
    """In every quarter, at its ends and at once beside them."""
    ends = np.linspace(0, 1, 9)
    beside = [np.nextafter(ends, toward).clip(0, 1) for toward in (-1, 2)]
    spread = np.random.default_rng(1).random(1 << 12)
    spread[:27] = np.concatenate([ends, *beside])
    values = spread.astype(precision)
    library = compiled(function, precision, machine)
    expected = exact(8 * np.arctan(np.longdouble(1)) * values.astype(np.longdouble))
    assert np.abs(applied(library, values) - expected).max() < np.finfo(precision).eps


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_exponential_never_becomes_denormal(precision: str) -> None:
    """Denormal numbers cost a hundred times a normal one."""
    values = np.full(64, -1e30, dtype=precision)
    values[1] = -np.inf
    found = applied(compiled(mathematics.exp_of_negative, precision), values)
    assert (found >= np.finfo(precision).tiny).all()
    assert (found < 1e-30).all()


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_comparison_with_nan_does_not_hold(precision: str) -> None:
    values = np.zeros(64, dtype=precision)
    values[5] = np.nan
    found = applied(compiled(lambda x: (x <= 1.0).select(1.0, 2.0), precision), values)
    assert found[5] == 2.0
    assert found[4] == 1.0
