"""Compiled histograms: the bins of values between equally spaced edges, and how many are in each.

Equal spacing gives the bin of a value that lies well inside; near an edge the edges decide, as
they do in numpy. Calls release the interpreter, so that threads fill histograms at once.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import MachineError
from calo_train.kernels.code import Code
from calo_train.kernels.compiler import Machine, compile_library, this_machine
from calo_train.kernels.mathematics import log
from calo_train.kernels.values import FLOAT64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from calo_train.kernels.integers import Integer
    from calo_train.kernels.values import Vector

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
BinArray = npt.NDArray[np.int32]

_log = logging.getLogger(__name__)
_NEAR = 1e-6  # bins from an edge; further away rounding cannot change the bin
_FIND = ("bins_of_linear", "bins_of_logarithmic")
_FIND_SIGNATURE = (
    ("values", "pointer"),  # float64 (count,), whole vectors
    ("count", "integer"),
    ("edges", "pointer"),  # float64 (bins + 1,)
    ("num_bins", "double"),
    ("lowest", "double"),  # edge
    ("highest", "double"),  # edge
    ("start", "double"),  # the lowest edge where edges are equally spaced: there, or its logarithm
    ("density", "double"),  # bins a unit of that
    ("bins", "pointer"),  # int32 (count,)
)
_COUNT = ("count_all", "count_rows")
_COUNT_SIGNATURE = (
    ("bins", "pointer"),  # int32
    ("rows", "pointer"),  # int64 (count,), of the bins; not read by `count_all`
    ("count", "integer"),
    ("counts", "pointer"),  # int64 (2, columns), of even and of odd ones
    ("num_columns", "integer"),
)


class CompiledHistograms:
    """Finds and counts bins, compiled for a machine."""

    def __init__(self, machine: Machine | None = None) -> None:
        machine = machine or this_machine()
        self._lanes = machine.vector_bytes // FLOAT64.num_bytes

        def write(module: ir.Module) -> None:
            for name, signature in signatures.items():
                code = Code(module, name, signature, precision=FLOAT64, lanes=self._lanes)
                (_write_find if name in _FIND else _write_count)(code, name)
                code.finish()

        signatures: dict[str, Sequence[tuple[str, str]]] = {
            **dict.fromkeys(_FIND, _FIND_SIGNATURE),
            **dict.fromkeys(_COUNT, _COUNT_SIGNATURE),
        }
        self._library = compile_library(
            write, signatures, machine, purpose="the histograms' kernel", key="bins"
        )

    def find(self, values: FloatArray, edges: FloatArray, *, is_log: bool) -> BinArray:
        """Give the bin of values; those of the last, incomplete vector are left out."""
        values = np.ascontiguousarray(values, dtype=np.float64)
        edges = np.ascontiguousarray(edges, dtype=np.float64)
        number, num_bins = len(values) // self._lanes * self._lanes, len(edges) - 1
        ends = np.log(edges[[0, -1]]) if is_log else edges[[0, -1]]
        bins = np.empty(number, dtype=np.int32)
        self._library.functions[_FIND[is_log]](
            values.ctypes.data, number, edges.ctypes.data, num_bins, edges[0], edges[-1],
            ends[0], num_bins / (ends[1] - ends[0]), bins.ctypes.data,
        )  # fmt: skip
        return bins

    def count(self, bins: BinArray, num_columns: int, rows: IndexArray | None) -> IndexArray:
        """Count the bins of some rows or of all, (columns,)."""
        bins = np.ascontiguousarray(bins)
        counts = np.zeros((2, num_columns), dtype=np.int64)
        chosen = bins if rows is None else np.ascontiguousarray(rows, dtype=np.int64)
        self._library.functions[_COUNT[rows is not None]](
            bins.ctypes.data, chosen.ctypes.data, len(chosen), counts.ctypes.data, num_columns
        )
        both: IndexArray = counts.sum(axis=0)
        return both


@cache
def compiled_histograms() -> CompiledHistograms | None:
    """Give them; None on a machine that cannot compile."""
    try:
        return CompiledHistograms()
    except MachineError as error:
        _log.info("histograms are filled in numpy: %s", error.what)
        return None


def _write_find(code: Code, name: str) -> None:
    num_bins, pointer = code.number("num_bins"), code.pointer("bins")
    lowest, highest = code.number("lowest"), code.number("highest")
    with code.loop(0, code.integer("count"), code.lanes) as place:
        value = code.pointer("values").vector(place)
        # Those outside, and NaN, are looked for as the lowest edge.
        inside = (value <= highest).select((value >= lowest).select(value, lowest), lowest)
        coordinate = log(inside) if name == _FIND[True] else inside
        guess = (coordinate - code.number("start")) * code.number("density")
        whole = guess.whole().minimum(num_bins - 1.0)
        found = code.variable(whole)
        from_middle = (guess - whole - 0.5).absolute()
        with code.when((from_middle >= 0.5 - _NEAR).any()):
            found.set(_decided(code, inside, whole))
        is_inside = (value >= lowest).select((value <= highest).select(1.0, 0.0), 0.0)
        pointer.store_whole((is_inside > 0.0).select(found.get(), num_bins), place)


def _decided(code: Code, inside: Vector, guess: Vector) -> Vector:
    """Give the bin by its edges; the guess is at most one bin off."""
    edges = code.pointer("edges")
    found = guess - (inside < edges.gathered(guess)).select(1.0, 0.0)
    found = found + (inside >= edges.at(1).gathered(found)).select(1.0, 0.0)
    return found.minimum(code.number("num_bins") - 1.0)


def _write_count(code: Code, name: str) -> None:
    bins, rows, counts = (code.pointer(name) for name in ("bins", "rows", "counts"))
    count = code.integer("count")

    def add(number: Integer, half: int) -> None:
        row = rows.integer(number) if name == _COUNT[True] else number
        column = bins.word(row) + code.integer("num_columns") * half
        counts.store_integer(column, counts.integer(column) + 1)

    # In turns, since an addition to the number just stored would wait for it.
    whole = count // 2 * 2
    with code.loop(0, whole, 2) as number:
        add(number, 0)
        add(number + 1, 1)
    with code.loop(whole, count) as number:
        add(number, 0)
