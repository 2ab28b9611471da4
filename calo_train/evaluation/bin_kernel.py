"""The compiled search for the bins of values between equally spaced edges.

Equal spacing gives the bin up to the rounding of an edge; the edges decide, as they do in numpy.
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
    from llvmlite import ir

FloatArray = npt.NDArray[np.float64]
BinArray = npt.NDArray[np.int32]

_log = logging.getLogger(__name__)
_NAMES = ("bins_of_linear", "bins_of_logarithmic")
_SIGNATURE = (
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


class CompiledBins:
    """The search, compiled for a machine."""

    def __init__(self, machine: Machine | None = None) -> None:
        machine = machine or this_machine()
        self._lanes = machine.vector_bytes // FLOAT64.num_bytes

        def write(module: ir.Module) -> None:
            for name in _NAMES:
                code = Code(module, name, _SIGNATURE, precision=FLOAT64, lanes=self._lanes)
                _write(code, is_log=name == _NAMES[True])
                code.finish()

        signatures = dict.fromkeys(_NAMES, _SIGNATURE)
        self._library = compile_library(
            write, signatures, machine, purpose="the histograms' kernel", key="bins"
        )

    def __call__(self, values: FloatArray, edges: FloatArray, *, is_log: bool) -> BinArray:
        """Give the bin of values; those of the last, incomplete vector are left out."""
        values = np.ascontiguousarray(values, dtype=np.float64)
        edges = np.ascontiguousarray(edges, dtype=np.float64)
        number, num_bins = len(values) // self._lanes * self._lanes, len(edges) - 1
        ends = np.log(edges[[0, -1]]) if is_log else edges[[0, -1]]
        bins = np.empty(number, dtype=np.int32)
        self._library.functions[_NAMES[is_log]](
            values.ctypes.data, number, edges.ctypes.data, num_bins, edges[0], edges[-1],
            ends[0], num_bins / (ends[1] - ends[0]), bins.ctypes.data,
        )  # fmt: skip
        return bins


@cache
def compiled_bins() -> CompiledBins | None:
    """Give the search; None on a machine that cannot compile it."""
    try:
        return CompiledBins()
    except MachineError as error:
        _log.info("histograms are filled in numpy: %s", error.what)
        return None


def _write(code: Code, *, is_log: bool) -> None:
    edges, num_bins = code.pointer("edges"), code.number("num_bins")
    lowest, highest = code.number("lowest"), code.number("highest")
    last = num_bins - 1.0
    with code.loop(0, code.integer("count"), code.lanes) as place:
        value = code.pointer("values").vector(place)
        # Those outside, and NaN, are looked for as the lowest edge.
        inside = (value <= highest).select((value >= lowest).select(value, lowest), lowest)
        coordinate = log(inside) if is_log else inside
        guess = ((coordinate - code.number("start")) * code.number("density")).whole()
        guess = guess.minimum(last)
        found = guess - (inside < edges.gathered(guess)).select(1.0, 0.0)
        is_above = (inside >= edges.at(1).gathered(found)).select(1.0, 0.0)
        found = (found + is_above).minimum(last)
        is_inside = (value >= lowest).select((value <= highest).select(1.0, 0.0), 0.0)
        bins = (is_inside > 0.0).select(found, num_bins)
        code.pointer("bins").store_whole(bins, place)
