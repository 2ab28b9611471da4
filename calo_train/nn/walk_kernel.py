"""The compiled walk: interprets the table of a flow for tiles of showers.

A tile is an array [row][lane] that stays in the processor's cache; each lane is a shower and does
the same operations in the same order, so its bits do not depend on the tile's width, its place in
a batch or the thread. Tiles of two widths are compiled: wide ones, and narrow ones of a single
vector for what is left over. Products hold up to six rows times two vectors of sums in registers;
every weight is read once a tile, in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from calo_train.kernels.code import Code
from calo_train.kernels.compiler import Library, Machine, compile_library, this_machine
from calo_train.kernels.threads import run_in_ranges
from calo_train.kernels.values import PRECISIONS, Pointer, Precision, Vector
from calo_train.nn import walk_program as fields

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from llvmlite import ir

    from calo_train.kernels.integers import Integer
    from calo_train.nn.autoregressive_heads import HeadCode
    from calo_train.nn.walk_program import WalkProgram

_WIDE_LANES = 64  # whole vectors on every machine; a tile stays in the cache
_LINE_BYTES = 64
# Vectors of lanes beside each other, so that eight to twelve sums hide the latency of a product.
_VECTORS_OF_ROWS = {1: 8, 2: 4, 3: 4, 4: 2, 5: 2, 6: 2}
_SIGNATURE = (
    ("table", "pointer"),
    ("num_operations", "integer"),
    ("weights", "pointer"),
    ("biases", "pointer"),
    ("settings", "pointer"),
    ("noise", "pointer"),
    ("num_features", "integer"),
    ("context", "pointer"),
    ("num_context", "integer"),
    ("rows", "pointer"),  # log-det, value and context row, then the row of each output feature
    ("features", "pointer"),
    ("log_det", "pointer"),
    ("wants_log_det", "integer"),
    ("state", "pointer"),
    ("first", "integer"),
    ("end", "integer"),
)
_WIDTHS = ("wide", "narrow")
_LOG_DET_ROW, _VALUE_ROW, _CONTEXT_ROW, _OUTPUT_ROWS = range(4)


@dataclass(frozen=True)
class TileShape:
    """Lanes of a tile and the distance of its rows, in numbers."""

    lanes: int
    stride: int

    @classmethod
    def of(cls, machine: Machine, precision: Precision, *, is_wide: bool) -> TileShape:
        """Give the wide or the narrow tile of a machine."""
        size = _WIDE_LANES * precision.num_bytes if is_wide else machine.vector_bytes
        # One cache line more: rows at a power of two would meet in few sets of the cache.
        return cls(size // precision.num_bytes, (size + _LINE_BYTES) // precision.num_bytes)


class CompiledWalk:
    """A program with its compiled kernels."""

    def __init__(self, program: WalkProgram, machine: Machine | None = None) -> None:
        machine = machine or this_machine()
        self._program = program
        self._precision = PRECISIONS[program.weights.dtype.name]
        self._library = _library(self._precision, program.heads, machine)
        self._wide, self._narrow = (
            TileShape.of(machine, self._precision, is_wide=is_wide) for is_wide in (True, False)
        )
        self._rows = np.concatenate(
            [
                [program.log_det_row, program.value_row, program.context_row],
                program.output_rows,
            ]
        ).astype(np.int64)

    def invert(
        self,
        noise: npt.NDArray[np.floating],
        context: npt.NDArray[np.floating],
        *,
        log_det: npt.NDArray[np.floating] | None,
        num_threads: int,
    ) -> npt.NDArray[np.floating]:
        """Map noise (n, D) and context (n, C) to features (n, D); fills `log_det` (n,) if given.

        All arrays are contiguous and of the program's precision.
        """
        features = np.empty_like(noise)

        def work(first: int, end: int) -> None:
            middle = first + (end - first) // self._wide.lanes * self._wide.lanes
            if end - middle > self._wide.lanes // 4:
                middle = end  # a wide tile with some lanes idle beats several narrow ones
            self._run("wide", self._wide, (noise, context, features, log_det), first, middle)
            self._run("narrow", self._narrow, (noise, context, features, log_det), middle, end)

        run_in_ranges(work, len(noise), grain=self._wide.lanes, num_threads=num_threads)
        return features

    def _run(
        self,
        name: str,
        tile: TileShape,
        arrays: tuple[npt.NDArray[np.floating] | None, ...],
        first: int,
        end: int,
    ) -> None:
        if first >= end:
            return
        program = self._program
        noise, context, features, log_det = (0 if a is None else a.ctypes.data for a in arrays)
        state = _zeroed(program.num_rows * tile.stride, program.weights.dtype)
        self._library.functions[name](
            program.table.ctypes.data,
            len(program.table),
            program.weights.ctypes.data,
            program.biases.ctypes.data,
            program.settings.ctypes.data,
            noise,
            program.num_features,
            context,
            program.num_context,
            self._rows.ctypes.data,
            features,
            log_det,
            int(arrays[-1] is not None),
            state.ctypes.data,
            first,
            end,
        )


def _zeroed(size: int, dtype: np.dtype[np.floating]) -> npt.NDArray[np.floating]:
    """Give zeros that start at a cache line: idle lanes must not hold denormals or NaN."""
    per_line = _LINE_BYTES // dtype.itemsize
    raw = np.zeros(size + per_line, dtype)
    start = -raw.ctypes.data % _LINE_BYTES // dtype.itemsize
    return raw[start : start + size]


@cache
def _library(precision: Precision, heads: tuple[HeadCode, ...], machine: Machine) -> Library:
    def write(module: ir.Module) -> None:
        lanes = machine.vector_bytes // precision.num_bytes
        for name in _WIDTHS:
            code = Code(module, name, _SIGNATURE, precision=precision, lanes=lanes)
            tile = TileShape.of(machine, precision, is_wide=name == "wide")
            _WalkCode(code, heads, tile).write()
            code.finish()

    return compile_library(
        write,
        dict.fromkeys(_WIDTHS, _SIGNATURE),
        machine,
        purpose="the sampling kernel",
        key=f"{precision.name} {heads}",
    )


class _WalkCode:
    """Writes the interpreter of a table for one width of tile."""

    def __init__(self, code: Code, heads: tuple[HeadCode, ...], tile: TileShape) -> None:
        self._code = code
        self._heads = heads
        self._tile = tile
        self._state = code.pointer("state")
        self._rows = code.pointer("rows")

    def write(self) -> None:
        """Write the loop over tiles: load, walk, store."""
        code, tile = self._code, self._tile
        with code.loop(code.integer("first"), code.integer("end"), tile.lanes) as first:
            count = (code.integer("end") - first).minimum(tile.lanes)
            for name, width, row in (
                ("noise", "num_features", _VALUE_ROW),
                ("context", "num_context", _CONTEXT_ROW),
            ):
                self._load(code.pointer(name), code.integer(width), row, first, count)
            self._clear_log_det()
            with code.loop(0, code.integer("num_operations")) as number:
                self._operate(number * fields.NUM_FIELDS)
            self._store(first, count)

    def _load(
        self, source: Pointer, width: Integer, row: int, first: Integer, count: Integer
    ) -> None:
        """Turn rows of showers (n, width) into rows of the tile."""
        target = self._row(self._rows.integer(row))
        with self._code.loop(0, count) as lane:
            shower = source.at((first + lane) * width)
            with self._code.loop(0, width) as column:
                target.copy_number(column * self._tile.stride + lane, shower, column)

    def _store(self, first: Integer, count: Integer) -> None:
        code, stride = self._code, self._tile.stride
        width = code.integer("num_features")
        with code.loop(0, count) as lane:
            shower = code.pointer("features").at((first + lane) * width)
            with code.loop(0, width) as column:
                row = self._rows.integer(column + _OUTPUT_ROWS)
                shower.copy_number(column, self._state, row * stride + lane)
        with code.when(code.integer("wants_log_det") >= 1):
            log_det = self._row(self._rows.integer(_LOG_DET_ROW))
            with code.loop(0, count) as lane:
                code.pointer("log_det").copy_number(first + lane, log_det, lane)

    def _clear_log_det(self) -> None:
        log_det = self._row(self._rows.integer(_LOG_DET_ROW))
        with self._code.loop(0, self._tile.lanes, self._code.lanes) as lane:
            log_det.store(self._code.constant(0.0), lane)

    def _operate(self, start: Integer) -> None:
        table = self._code.pointer("table")

        def value(number: int) -> Integer:
            return table.integer(start + number)

        cases: list[tuple[int, Callable[[], None]]] = [
            (rows, lambda rows=rows: self._affine(rows, value))  # type: ignore[misc]
            for rows in range(1, fields.ROWS_AT_ONCE + 1)
        ]
        for number, head in enumerate(self._heads, start=fields.ROWS_AT_ONCE + 1):
            cases.append((number, lambda head=head: self._head(head, value)))  # type: ignore[misc]
        self._code.choose(value(0), cases)

    def _affine(self, num_rows: int, value: Callable[[int], Integer]) -> None:
        """Write rows = bias + added + weights . sources, for every chunk of lanes."""
        code = self._code
        source = self._row(value(fields.SOURCE))
        weights = code.pointer("weights").at(value(fields.WEIGHTS))
        biases = code.pointer("biases").at(value(fields.BIAS))
        num_vectors = min(_VECTORS_OF_ROWS[num_rows], self._tile.lanes // code.lanes)
        with code.loop(0, self._tile.lanes, num_vectors * code.lanes) as lane:
            sums = [
                [code.variable(biases.spread(row)) for _ in range(num_vectors)]
                for row in range(num_rows)
            ]
            with code.when(value(fields.ADDED) >= 0):
                added = self._row(value(fields.ADDED)).at(lane)
                for row, own in enumerate(sums):
                    for item, place in zip(own, self._places(row, num_vectors), strict=True):
                        item.set(item.get() + added.vector(place))
            with code.loop(0, value(fields.SOURCES)) as number:
                read = source.at(number * self._tile.stride + lane)
                inputs = [read.vector(place) for place in self._places(0, num_vectors)]
                for row, own in enumerate(sums):
                    weight = weights.spread(number * num_rows + row)
                    for item, given in zip(own, inputs, strict=True):
                        item.set(weight.times_plus(given, item.get()))
            results = [[item.get() for item in own] for own in sums]
            self._keep(results, value(fields.RAW), lane)
            # NaN is not below zero and stays NaN, as in torch.
            activated = [[(item < 0.0).select(0.0, item) for item in own] for own in results]
            self._keep(activated, value(fields.ACTIVATED), lane)

    def _keep(self, results: list[list[Vector]], row: Integer, lane: Integer) -> None:
        with self._code.when(row >= 0):
            target = self._row(row).at(lane)
            for number, own in enumerate(results):
                for item, place in zip(own, self._places(number, len(own)), strict=True):
                    target.store(item, place)

    def _head(self, head: HeadCode, value: Callable[[int], Integer]) -> None:
        code = self._code
        settings = code.pointer("settings").at(value(fields.SETTINGS))
        parameters = self._row(value(fields.PARAMETERS))
        log_det = self._row(self._rows.integer(_LOG_DET_ROW))
        with code.loop(0, self._tile.lanes, code.lanes) as lane:
            inverted = head.invert(
                self._row(value(fields.VALUE)).vector(lane),
                lambda index: parameters.at(lane).vector(index * self._tile.stride),
                settings.spread,
            )
            self._row(value(fields.TARGET)).store(inverted.features, lane)
            with code.when(code.integer("wants_log_det") >= 1):
                log_det.store(log_det.vector(lane) + inverted.log_abs_det(), lane)

    def _places(self, row: int, num_vectors: int) -> list[int]:
        """Offsets of the vectors of one row beside each other."""
        return [
            row * self._tile.stride + number * self._code.lanes for number in range(num_vectors)
        ]

    def _row(self, row: Integer) -> Pointer:
        return self._state.at(row * self._tile.stride)
