"""The compiled sweep over the voxels of a block of showers.

Each lane is a shower and adds in the order of the voxels, so a shower's sums do not depend on the
block it is read in. A layer of a few showers is turned to [voxel][lane] in the cache, next to the
layer before it, and all its sums are kept in registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calo_train.evaluation.layer_sums import LayerPlan, LayerSums
from calo_train.kernels.code import FLOAT64, Code
from calo_train.kernels.compiler import Library, Machine, compile_library, this_machine

if TYPE_CHECKING:
    from calo_train.evaluation.layer_sums import Energies
    from calo_train.kernels.code import Integer, Pointer, Variable, Vector

_SIGNATURE = (
    ("energies", "pointer"),  # float32 (n, voxels)
    ("num_showers", "integer"),
    ("num_voxels", "integer"),
    ("coordinates", "pointer"),  # (voxels, k)
    ("layers", "pointer"),  # int64 (layers, 4)
    ("num_layers", "integer"),
    ("threshold", "double"),
    ("sums", "pointer"),  # (fields, layers, stride)
    ("stride", "integer"),  # showers, up to whole vectors
    ("lateral", "pointer"),  # (cells, stride)
    ("num_cells", "integer"),
    ("buffers", "pointer"),  # two layers and the lateral cells, [voxel][lane]
    ("buffer_size", "integer"),  # voxels of the largest layer, times lanes
)
_LAYER_FIELDS = 4
_START, _VOXELS, _CELLS, _IS_LIKE_PREVIOUS = range(_LAYER_FIELDS)
_NAME = "layer_sums"


class CompiledSums:
    """The sweep for a number of coordinates."""

    def __init__(self, num_coordinates: int, machine: Machine | None = None) -> None:
        machine = machine or this_machine()
        self._num_fields = 6 + 2 * num_coordinates
        self._lanes = machine.vector_bytes // FLOAT64.num_bytes
        self._library = _library(num_coordinates, self._lanes, machine)

    def sums(self, plan: LayerPlan, energies: Energies, threshold: float) -> LayerSums:
        """Sum thresholded energies (n, voxels)."""
        energies = np.ascontiguousarray(energies, dtype=np.float32)
        number, num_layers = len(energies), plan.geometry.num_layers
        stride = -(-number // self._lanes) * self._lanes
        sums = np.empty((self._num_fields, num_layers, stride))
        lateral = np.empty((plan.num_cells, stride))
        layers = _layer_table(plan)
        buffer_size = int(layers[:, _VOXELS].max()) * self._lanes
        # Lanes without a shower hold zeros.
        buffers = np.zeros(2 * buffer_size + plan.num_cells * self._lanes)
        coordinates = np.ascontiguousarray(plan.coordinates)
        self._library.functions[_NAME](
            energies.ctypes.data, number, energies.shape[1], coordinates.ctypes.data,
            layers.ctypes.data, num_layers, float(np.float32(threshold)), sums.ctypes.data,
            stride, lateral.ctypes.data, plan.num_cells, buffers.ctypes.data, buffer_size,
        )  # fmt: skip
        fields = [field[:, :number].T for field in sums]
        return LayerSums.of_fields(plan.names, fields, lateral[:, :number].T)


def _layer_table(plan: LayerPlan) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.asarray(
        [
            [piece.start, piece.stop - piece.start, plan.cell_of_voxel[piece.start], is_like]
            for piece, is_like in zip(
                plan.geometry.layer_slices, plan.is_like_previous, strict=True
            )
        ],
        dtype=np.int64,
    )


def _library(num_coordinates: int, lanes: int, machine: Machine) -> Library:
    from llvmlite import ir

    module = ir.Module(_NAME)
    code = Code(module, _NAME, _SIGNATURE, precision=FLOAT64, lanes=lanes)
    _SweepCode(code, num_coordinates).write()
    code.finish()
    return compile_library(module, {_NAME: _SIGNATURE}, machine, purpose="the observables' kernel")


@dataclass(frozen=True, eq=False)
class _Moment:
    """Sums of x E and x^2 E along a coordinate."""

    first: Variable
    second: Variable

    def add(self, coordinate: Vector, energy: Vector) -> None:
        weighted = coordinate * energy
        self.first.set(self.first.get() + weighted)
        self.second.set(coordinate.times_plus(weighted, self.second.get()))


class _SweepCode:
    """Writes the loops over groups of showers, layers and voxels."""

    def __init__(self, code: Code, num_coordinates: int) -> None:
        self._code = code
        self._num_coordinates = num_coordinates
        self._stride = code.integer("stride")
        buffers, self._size = code.pointer("buffers"), code.integer("buffer_size")
        self._buffers = buffers
        self._lateral = buffers.at(self._size * 2)

    def write(self) -> None:
        """Write one group of showers after the other."""
        code = self._code
        number, num_cells = code.integer("num_showers"), code.integer("num_cells")
        with code.loop(0, number, code.lanes) as shower:
            with code.loop(0, num_cells) as cell:
                self._lateral.store(code.constant(0.0), cell * code.lanes)
            with code.loop(0, code.integer("num_layers")) as layer:
                self._layer(shower, layer)
            with code.loop(0, num_cells) as cell:
                target = code.pointer("lateral").at(cell * self._stride + shower)
                target.store(self._lateral.vector(cell * code.lanes))

    def _layer(self, shower: Integer, layer: Integer) -> None:
        code = self._code
        table, row = code.pointer("layers"), layer * _LAYER_FIELDS
        start, num_voxels = table.integer(row + _START), table.integer(row + _VOXELS)
        is_odd = layer - layer // 2 * 2
        own = self._buffers.at(is_odd * self._size)
        previous = self._buffers.at((is_odd * -1 + 1) * self._size)
        self._load(own, shower, start, num_voxels)
        cells = self._lateral.at(table.integer(row + _CELLS) * code.lanes)
        fields = self._add_voxels(own, cells, start, num_voxels)
        product = code.variable(code.constant(0.0))
        with (
            code.when(table.integer(row + _IS_LIKE_PREVIOUS) >= 1),
            code.loop(0, num_voxels * code.lanes, code.lanes) as place,
        ):
            energy = own.vector(place)
            product.set(energy.times_plus(previous.vector(place), product.get()))
        for number, field in enumerate([*fields, product]):
            index = code.integer("num_layers") * number + layer
            code.pointer("sums").at(index * self._stride + shower).store(field.get())

    def _load(self, own: Pointer, shower: Integer, start: Integer, num_voxels: Integer) -> None:
        """Turn a layer of the showers to [voxel][lane]."""
        code = self._code
        count = (code.integer("num_showers") - shower).minimum(code.lanes)
        with code.loop(0, count) as lane:
            first = (shower + lane) * code.integer("num_voxels") + start
            with code.loop(0, num_voxels) as voxel:
                own.widen_number(
                    voxel * code.lanes + lane, code.pointer("energies"), first + voxel
                )

    def _add_voxels(
        self, own: Pointer, cells: Pointer, start: Integer, num_voxels: Integer
    ) -> list[Variable]:
        code = self._code
        threshold = code.number("threshold")
        energy, hits, brightest, second, squares = (
            code.variable(code.constant(0.0)) for _ in range(5)
        )
        moments = [
            _Moment(code.variable(code.constant(0.0)), code.variable(code.constant(0.0)))
            for _ in range(self._num_coordinates)
        ]
        with code.loop(0, num_voxels) as voxel:
            place = voxel * code.lanes
            found = own.vector(place)
            kept = (found >= threshold).select(found, 0.0)
            own.store(kept, place)
            cells.store(cells.vector(place) + kept, place)
            energy.set(energy.get() + kept)
            hits.set(hits.get() + (kept > 0.0).select(1.0, 0.0))
            second.set(second.get().maximum(brightest.get().minimum(kept)))
            brightest.set(brightest.get().maximum(kept))
            squares.set(kept.times_plus(kept, squares.get()))
            centres = code.pointer("coordinates").at((start + voxel) * self._num_coordinates)
            for number, moment in enumerate(moments):
                moment.add(centres.spread(number), kept)
        pairs = [part for moment in moments for part in (moment.first, moment.second)]
        return [energy, *pairs, hits, brightest, second, squares]
