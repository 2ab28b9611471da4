"""Scans eight at a time against numpy, at every length and place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from vector_functions import plain_machine

from calo_train.kernels.code import Code
from calo_train.kernels.compiler import Library, Machine, compile_library, this_machine
from calo_train.kernels.scanning import WORDS, are_energies, list_from, set_bits
from calo_train.kernels.values import FLOAT64

if TYPE_CHECKING:
    import numpy.typing as npt
    from llvmlite import ir

_SIGNATURE = (
    ("words", "pointer"),
    ("count", "integer"),
    ("least", "integer"),
    ("numbers", "pointer"),
    ("table", "pointer"),
    ("results", "pointer"),
)
DENORMAL = float(np.float32(1e-45))
LEAST = [0.0, DENORMAL, 0.5]
energies = st.sampled_from(
    [0.0, DENORMAL, 0.25, 0.5, float(np.nextafter(np.float32(0.5), 0)), 9e9]
)


def scans(machine: Machine) -> Library:
    """Compile both scans: results are the number of listed words, and whether all are energies."""

    def write(module: ir.Module) -> None:
        lanes = machine.vector_bytes // FLOAT64.num_bytes
        code = Code(module, "scans", _SIGNATURE, precision=FLOAT64, lanes=lanes)
        words, count = code.pointer("words"), code.integer("count")
        numbers, table = code.pointer("numbers"), code.pointer("table")
        listed = list_from(code, words, count, code.integer("least"), numbers, table)
        code.pointer("results").store_integer(0, listed)
        code.pointer("results").store_integer(1, are_energies(code, words, count))
        code.finish()

    signatures = {"scans": _SIGNATURE}
    return compile_library(write, signatures, machine, purpose="a test's kernel", key="scans")


@pytest.fixture(scope="module", params=["this", "plain"])
def library(request: pytest.FixtureRequest) -> Library:
    return scans(this_machine() if request.param == "this" else plain_machine())


def scanned(
    library: Library, values: npt.NDArray[np.float32], least: float
) -> tuple[npt.NDArray[np.int32], bool]:
    """List what is above zero and at least `least`, and say whether all are energies."""
    # Behind the values lies what would count if it were read.
    words = np.concatenate([values, np.full(WORDS, np.nan, dtype=np.float32)])
    numbers = np.full(len(values) + WORDS, -1, dtype=np.int32)
    table, results = set_bits(), np.zeros(2, dtype=np.int64)
    bits = max(int(np.float32(least).view(np.int32)), 1)
    library.functions["scans"](
        words.ctypes.data, len(values), bits, numbers.ctypes.data, table.ctypes.data,
        results.ctypes.data,
    )  # fmt: skip
    return numbers[: results[0]], bool(results[1])


@given(
    values=arrays.arrays(np.float32, st.integers(0, 40), elements=energies),
    least=st.sampled_from(LEAST),
)
def test_listed_are_those_that_pass_in_order(library, values, least):
    """Lengths that fill no vector, ties with the bound, denormals, and no bound."""
    listed, is_valid = scanned(library, values, least)
    np.testing.assert_array_equal(listed, np.flatnonzero((values >= least) & (values > 0)))
    assert is_valid


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, -1.0, -DENORMAL])
@pytest.mark.parametrize("length", [1, 8, 13, 24])
def test_one_number_that_is_no_energy_is_found_anywhere(library, value, length):
    for place in range(length):
        values = np.full(length, 0.5, dtype=np.float32)
        values[place] = value
        assert not scanned(library, values, 0.25)[1]


@pytest.mark.parametrize("length", [1, 8, 13])
def test_minus_zero_is_an_energy_and_is_not_listed(library, length):
    listed, is_valid = scanned(library, np.full(length, -0.0, dtype=np.float32), 0.0)
    assert is_valid
    assert len(listed) == 0
