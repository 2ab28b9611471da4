"""The compiled sweep over the voxels of a block of showers.

Of each layer the voxels that the threshold keeps are first listed without a branch, since which
ones they are cannot be predicted; all sums, the cell spectrum and the mean shower are then made
from the list. A vector holds the sums that a voxel's energy is added to, weighted by its cell:
1, the coordinates and their squares. A shower's sums do not depend on the block it is read in.
A few showers are taken together: tested, so that they lie in the cache, then layer by layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.layer_plan import (
    BACK,
    CELLS,
    IS_LIKE_PREVIOUS,
    NUM_LAYER_FIELDS,
    NUM_WEIGHTS,
    START,
    VOXELS,
    LayerPlan,
)
from calo_train.evaluation.layer_sums import LayerSums, Sweep
from calo_train.evaluation.spectrum import HALF
from calo_train.kernels.code import Code
from calo_train.kernels.compiler import Library, Machine, compile_library, this_machine
from calo_train.kernels.scanning import WORDS, are_energies, list_from, set_bits
from calo_train.kernels.values import FLOAT64

if TYPE_CHECKING:
    import numpy.typing as npt
    from llvmlite import ir

    from calo_train.evaluation.layer_plan import Energies, FloatArray
    from calo_train.kernels.integers import Integer
    from calo_train.kernels.values import Pointer, Vector

_NAME = "layer_sums"
_SIGNATURE = (
    ("energies", "pointer"),  # float32 (n, voxels)
    ("num_showers", "integer"),
    ("num_voxels", "integer"),
    ("weights", "pointer"),  # (cells, 8): 1, coordinates, their squares
    ("layers", "pointer"),  # int64 (layers, 5)
    ("num_layers", "integer"),
    ("least", "integer"),  # bits of the smallest energy that is kept
    ("threshold", "double"),  # it
    ("sums", "pointer"),  # (13, layers, n)
    ("lateral", "pointer"),  # (n, cells), zeros
    ("num_cells", "integer"),
    ("totals", "pointer"),  # (voxels,), added to
    ("bins", "pointer"),  # uint32 (65536,): that of SpectrumBins, by upper bits
    ("counts", "pointer"),  # int64 (n, columns), zeros
    ("num_columns", "integer"),
    ("hits", "pointer"),  # int32, room for the voxels of the largest layer and a row
    ("rows", "pointer"),  # uint8 (256, 8), those of a list
    ("is_valid", "pointer"),  # int32 (n,), written
)
_NUM_FIELDS = NUM_WEIGHTS + 5  # the weighted sums, then these
_HITS, _BRIGHTEST, _SECOND, _SQUARES, _PRODUCTS = range(NUM_WEIGHTS, _NUM_FIELDS)
_SHOWERS_TOGETHER = 8  # their sums of a layer fill cache lines


class CompiledSweep:
    """The sweep, compiled for a machine."""

    def __init__(self, machine: Machine | None = None) -> None:
        machine = machine or this_machine()
        self._library = _library(machine)
        self._rows = set_bits()

    def __call__(
        self,
        plan: LayerPlan,
        energies: Energies,
        threshold: float,
        bins: npt.NDArray[np.uint32],
        num_columns: int,
    ) -> Sweep:
        """Sweep thresholded energies (n, voxels); `bins` is their table."""
        energies = np.ascontiguousarray(energies, dtype=np.float32)
        number, num_voxels = energies.shape
        num_layers = plan.geometry.num_layers
        layers, weights = plan.layer_table, plan.cell_weights
        # Observables go through one field of all showers at a time.
        sums = np.empty((_NUM_FIELDS, num_layers, number))
        lateral, totals = np.zeros((number, plan.num_cells)), np.zeros(num_voxels)
        counts = np.zeros((number, num_columns), dtype=np.int64)
        hits = np.empty(int(layers[:, VOXELS].max()) + WORDS, dtype=np.int32)
        is_valid = np.empty(number, dtype=np.int32)
        # Bits of positive floats rise as they do; 1 is the smallest above zero.
        least = max(int(np.float32(threshold).view(np.int32)), 1)
        self._library.functions[_NAME](
            energies.ctypes.data, number, num_voxels, weights.ctypes.data, layers.ctypes.data,
            num_layers, least, float(np.int32(least).view(np.float32)), sums.ctypes.data,
            lateral.ctypes.data, plan.num_cells, totals.ctypes.data, bins.ctypes.data,
            counts.ctypes.data, num_columns, hits.ctypes.data, self._rows.ctypes.data,
            is_valid.ctypes.data,
        )  # fmt: skip
        return Sweep(_sums_of(plan, sums, lateral), counts, totals, is_valid != 0)


def _sums_of(plan: LayerPlan, sums: FloatArray, lateral: FloatArray) -> LayerSums:
    fields, count = sums.transpose(0, 2, 1), len(plan.names)
    return LayerSums(
        plan.names,
        energy=fields[0],
        first=tuple(fields[1 : 1 + count]),
        second=tuple(fields[1 + count : 1 + 2 * count]),
        hits=fields[_HITS],
        brightest=fields[_BRIGHTEST],
        second_brightest=fields[_SECOND],
        squares=fields[_SQUARES],
        products=fields[_PRODUCTS],
        lateral=lateral,
    )


def _library(machine: Machine) -> Library:
    def write(module: ir.Module) -> None:
        lanes = machine.vector_bytes // FLOAT64.num_bytes
        code = Code(module, _NAME, _SIGNATURE, precision=FLOAT64, lanes=lanes)
        _SweepCode(code).write()
        code.finish()

    return compile_library(
        write, {_NAME: _SIGNATURE}, machine, purpose="the observables' kernel", key=_NAME
    )


class _SweepCode:
    """Writes the loops over showers, layers and kept voxels."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._least = code.integer("least")
        self._threshold = code.number("threshold")

    def write(self) -> None:
        """Write a few showers together, layer by layer."""
        code = self._code
        num_showers = code.integer("num_showers")
        with code.loop(0, num_showers, _SHOWERS_TOGETHER) as first:
            behind = (first + _SHOWERS_TOGETHER).minimum(num_showers)
            with code.loop(first, behind) as shower:
                self._test(shower)
            with (
                code.loop(0, code.integer("num_layers")) as layer,
                code.loop(first, behind) as shower,
            ):
                self._layer(shower, layer)

    def _test(self, shower: Integer) -> None:
        """Write whether a shower is valid; it lies in the cache from here on."""
        num_voxels = self._code.integer("num_voxels")
        energies = self._code.pointer("energies").at_word(shower * num_voxels)
        is_valid = are_energies(self._code, energies, num_voxels)
        self._code.pointer("is_valid").store_word(shower, is_valid)

    def _layer(self, shower: Integer, layer: Integer) -> None:
        code, table = self._code, self._code.pointer("layers")
        row = layer * NUM_LAYER_FIELDS
        start, cells = table.integer(row + START), table.integer(row + CELLS)
        base = shower * code.integer("num_voxels") + start
        energies = code.pointer("energies").at_word(base)
        previous = code.pointer("energies").at_word(base - table.integer(row + BACK))
        hits = code.pointer("hits")
        # An invalid shower has no hits.
        num_voxels = table.integer(row + VOXELS) * code.pointer("is_valid").word(shower)
        num_hits = list_from(code, energies, num_voxels, self._least, hits, code.pointer("rows"))
        places = range(0, NUM_WEIGHTS, code.lanes)
        sums = [code.variable(code.constant(0.0)) for _ in places]
        brightest, second, squares, products = (
            code.variable(code.constant(0.0)) for _ in range(4)
        )
        weights = code.pointer("weights").at(cells * NUM_WEIGHTS)
        lateral = code.pointer("lateral").at(shower * code.integer("num_cells") + cells)
        totals = code.pointer("totals").at(start)
        counts = code.pointer("counts").at(shower * code.integer("num_columns"))
        with code.loop(0, num_hits) as number:
            voxel = hits.word(number)
            energy = energies.widened(voxel)
            for place, total in zip(places, sums, strict=True):
                weight = weights.vector(voxel * NUM_WEIGHTS + place)
                total.set(energy.times_plus(weight, total.get()))
            second.set(second.get().maximum(brightest.get().minimum(energy)))
            brightest.set(brightest.get().maximum(energy))
            squares.set(energy.times_plus(energy, squares.get()))
            before = previous.widened_from(voxel, self._threshold)
            products.set(energy.times_plus(before, products.get()))
            lateral.add_number(voxel, energy)
            totals.add_number(voxel, energy)
            self._count(counts, energies.unsigned_word(voxel))
        is_like = table.integer(row + IS_LIKE_PREVIOUS).as_vector()
        found = [total.get() for total in sums]
        numbers = [(vector, lane) for vector in found for lane in range(code.lanes)]
        singles = brightest.get(), second.get(), squares.get(), products.get() * is_like
        numbers += [(vector, 0) for vector in (num_hits.as_vector(), *singles)]
        self._store(shower, layer, numbers)

    def _store(self, shower: Integer, layer: Integer, numbers: list[tuple[Vector, int]]) -> None:
        code = self._code
        num_layers, num_showers = code.integer("num_layers"), code.integer("num_showers")
        first = layer * num_showers + shower
        for field, (vector, lane) in enumerate(numbers):
            place = first + num_layers * num_showers * field
            code.pointer("sums").store_lane(place, vector, lane)

    def _count(self, counts: Pointer, bits: Integer) -> None:
        """Count a voxel in its bin of the spectrum."""
        entry = self._code.pointer("bins").unsigned_word(bits.shifted_right(HALF))
        column = (entry + bits.low_bits(HALF)).shifted_right(HALF)
        counts.store_integer(column, counts.integer(column) + 1)
