"""The compiled sweep over the voxels of a block of showers.

Of each layer the voxels that the threshold keeps are first listed without a branch, since which
ones they are cannot be predicted; all sums, the cell spectrum and the mean shower are then made
from the list. A vector holds the sums that a voxel's energy is added to, weighted by its cell:
1, the coordinates and their squares. A shower's sums do not depend on the block it is read in.
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
from calo_train.kernels.code import Code
from calo_train.kernels.compiler import Library, Machine, compile_library, this_machine
from calo_train.kernels.values import FLOAT64

if TYPE_CHECKING:
    import numpy.typing as npt
    from llvmlite import ir

    from calo_train.evaluation.layer_plan import Energies, FloatArray
    from calo_train.kernels.integers import Integer
    from calo_train.kernels.values import Vector

_NAME = "layer_sums"
_SIGNATURE = (
    ("energies", "pointer"),  # float32 (n, voxels), not negative
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
    ("bins", "pointer"),  # int32 (65536, 2): columns by upper bits, and the edge inside
    ("counts", "pointer"),  # int64 (n, columns), zeros
    ("num_columns", "integer"),
    ("hits", "pointer"),  # int64, room for the voxels of the largest layer
)
_NUM_FIELDS = NUM_WEIGHTS + 5  # the weighted sums, then these
_HITS, _BRIGHTEST, _SECOND, _SQUARES, _PRODUCTS = range(NUM_WEIGHTS, _NUM_FIELDS)
_UNROLLED = 8  # voxels that are listed between two branches
_BITS_PER_INTERVAL = 16


class CompiledSweep:
    """The sweep, compiled for a machine."""

    def __init__(self, machine: Machine | None = None) -> None:
        machine = machine or this_machine()
        self._library = _library(machine)

    def __call__(
        self,
        plan: LayerPlan,
        energies: Energies,
        threshold: float,
        bins: npt.NDArray[np.int32],
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
        hits = np.empty(int(layers[:, VOXELS].max()) + 1, dtype=np.int64)
        # Bits of positive floats rise as they do; 1 is the smallest above zero.
        least = max(int(np.float32(threshold).view(np.int32)), 1)
        self._library.functions[_NAME](
            energies.ctypes.data, number, num_voxels, weights.ctypes.data, layers.ctypes.data,
            num_layers, least, float(np.int32(least).view(np.float32)), sums.ctypes.data,
            lateral.ctypes.data, plan.num_cells, totals.ctypes.data, bins.ctypes.data,
            counts.ctypes.data, num_columns, hits.ctypes.data,
        )  # fmt: skip
        return Sweep(_sums_of(plan, sums, lateral), counts, totals)


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
        self._energies = code.pointer("energies")
        self._hits = code.pointer("hits")
        self._least = code.integer("least")
        self._threshold = code.number("threshold")

    def write(self) -> None:
        """Write one shower after the other, layer by layer."""
        code = self._code
        num_layers = code.integer("num_layers")
        with (
            code.loop(0, code.integer("num_showers")) as shower,
            code.loop(0, num_layers) as layer,
        ):
            self._layer(shower, layer)

    def _layer(self, shower: Integer, layer: Integer) -> None:
        code, table = self._code, self._code.pointer("layers")
        row = layer * NUM_LAYER_FIELDS
        start, cells = table.integer(row + START), table.integer(row + CELLS)
        base = shower * code.integer("num_voxels") + start
        num_hits = self._list_hits(base, table.integer(row + VOXELS))
        places = range(0, NUM_WEIGHTS, code.lanes)
        sums = [code.variable(code.constant(0.0)) for _ in places]
        brightest, second, squares, products = (
            code.variable(code.constant(0.0)) for _ in range(4)
        )
        lateral = code.pointer("lateral").at(shower * code.integer("num_cells") + cells)
        totals = code.pointer("totals").at(start)
        with code.loop(0, num_hits) as number:
            voxel = self._hits.integer(number)
            energy = self._energies.widened(base + voxel)
            weights = code.pointer("weights").at((cells + voxel) * NUM_WEIGHTS)
            for place, total in zip(places, sums, strict=True):
                total.set(energy.times_plus(weights.vector(place), total.get()))
            second.set(second.get().maximum(brightest.get().minimum(energy)))
            brightest.set(brightest.get().maximum(energy))
            squares.set(energy.times_plus(energy, squares.get()))
            previous = self._kept(base + voxel - table.integer(row + BACK))
            products.set(energy.times_plus(previous, products.get()))
            lateral.add_number(voxel, energy)
            totals.add_number(voxel, energy)
            self._count(shower, self._energies.word(base + voxel))
        is_like = table.integer(row + IS_LIKE_PREVIOUS).as_vector()
        found = [total.get() for total in sums]
        numbers = [(vector, lane) for vector in found for lane in range(code.lanes)]
        singles = brightest.get(), second.get(), squares.get(), products.get() * is_like
        numbers += [(vector, 0) for vector in (num_hits.as_vector(), *singles)]
        self._store(shower, layer, numbers)

    def _store(self, shower: Integer, layer: Integer, numbers: list[tuple[Vector, int]]) -> None:
        code = self._code
        num_layers, num_showers = code.integer("num_layers"), code.integer("num_showers")
        for field, (vector, lane) in enumerate(numbers):
            place = (num_layers * field + layer) * num_showers + shower
            code.pointer("sums").store_lane(place, vector, lane)

    def _kept(self, place: Integer) -> Vector:
        """Give an energy that the threshold keeps, else 0."""
        energy = self._energies.widened(place)
        return (energy >= self._threshold).select(energy, 0.0)

    def _list_hits(self, base: Integer, num_voxels: Integer) -> Integer:
        """List the voxels of a layer that the threshold keeps; give their number."""
        code, count = self._code, self._code.counter()

        def list_one(voxel: Integer) -> None:
            # Written for every voxel; the next one takes the place of one that is not kept.
            self._hits.store_integer(count.get(), voxel)
            is_kept = self._energies.word(base + voxel) >= self._least
            count.set(count.get() + is_kept.as_integer())

        whole = num_voxels // _UNROLLED * _UNROLLED
        with code.loop(0, whole, _UNROLLED) as voxel:
            for offset in range(_UNROLLED):
                list_one(voxel + offset)
        with code.loop(whole, num_voxels) as voxel:
            list_one(voxel)
        return count.get()

    def _count(self, shower: Integer, bits: Integer) -> None:
        """Count a voxel in its bin of the spectrum."""
        code = self._code
        interval = bits.shifted_right(_BITS_PER_INTERVAL)
        bins = code.pointer("bins")
        is_above = bits >= bins.word(interval * 2 + 1)
        column = bins.word(interval * 2) + is_above.as_integer()
        place = shower * code.integer("num_columns") + column
        counts = code.pointer("counts")
        counts.store_integer(place, counts.integer(place) + 1)
