"""A flow compiled to a table of operations on rows of showers, for the walk by degree.

Nothing in the walk depends on data, so it is written down once: an integer table, the unmasked
weights in the order in which they are read, and biases. Two kinds of operation suffice. An affine
one computes a few rows, up to six on a CPU: bias + added row + weights . source rows, stored as it
is, activated, or both. A head takes the parameters of a feature and the row of its base value and
writes the feature. Embedding network, context projections, hidden layers of every MADE and all
permutations are rows and operations of one table; a permutation only says from which row a head
reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from calo_train.nn.flow_steps import FlowSteps, PermutationStep

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from calo_train.nn.autoregressive_heads import Head, HeadCode
    from calo_train.nn.made_layers import Layer, SortedMade

ROWS_AT_ONCE = 6  # times two vectors of lanes are twelve sums, which sixteen registers can hold
NUM_FIELDS = 8
NONE = -1
# Fields of an affine operation: rows (1 to `rows_at_once`), then these.
SOURCES, SOURCE, WEIGHTS, BIAS, ADDED, RAW, ACTIVATED = range(1, NUM_FIELDS)
# Fields of a head: `rows_at_once` + 1 + its number, then these.
PARAMETERS, VALUE, TARGET, SETTINGS = range(1, 5)

Array = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class WalkProgram:
    """A flow as a table (operations, 8) and what it refers to."""

    table: npt.NDArray[np.int64]
    weights: Array
    biases: Array
    settings: Array
    heads: tuple[HeadCode, ...]  # kinds of head that the table names by number
    num_rows: int
    num_features: int
    num_context: int
    context_row: int
    value_row: int
    log_det_row: int
    output_rows: npt.NDArray[np.int64]  # (features,)


@dataclass
class ProgramWriter:
    """Writes the operations of a flow one after the other, in the order of drawing."""

    num_features: int
    dtype: type[np.floating]
    num_context: int = 0
    rows_at_once: int = ROWS_AT_ONCE
    _table: list[list[int]] = field(default_factory=list)
    _weights: list[Array] = field(default_factory=list)
    _biases: list[Array] = field(default_factory=list)
    _settings: list[float] = field(default_factory=list)
    _heads: list[HeadCode] = field(default_factory=list)
    _num_weights: int = 0
    _num_biases: int = 0
    _num_rows: int = 0
    _most_rows: int = 0

    def __post_init__(self) -> None:
        self._log_det_row = self.rows(1)
        self._input_row = self._context_row = self.rows(self.num_context)
        # Features of two transforms in a row: one reads what the other wrote.
        self._feature_rows = [self.rows(self.num_features), self.rows(self.num_features)]
        self._value_row = self._feature_rows[0]
        self._values = np.arange(self.num_features) + self._value_row
        self._shared_row = self._num_rows  # hidden rows of one MADE serve the next as well

    def rows(self, count: int) -> int:
        """Reserve rows and give the first."""
        first = self._num_rows
        self._num_rows += count
        self._most_rows = max(self._most_rows, self._num_rows)
        return first

    def embed(self, layers: Sequence[tuple[nn.Linear, bool]]) -> None:
        """Put linear layers, each with whether a ReLU follows, before the context."""
        for layer, is_activated in layers:
            target = self.rows(layer.out_features)
            raw, activated = (NONE, target) if is_activated else (target, NONE)
            self._affine(
                self._array(layer.weight), self._array(layer.bias), source=self._context_row,
                raw=raw, activated=activated,
            )  # fmt: skip
            self._context_row = target
        self._shared_row = self._num_rows

    def permute(self, inverse: npt.NDArray[np.int64]) -> None:
        """Undo a permutation: feature j is what stands at inverse[j]."""
        self._values = self._values[inverse]

    def walk(self, made: SortedMade, head: Head) -> None:
        """Invert one MADE with its head."""
        self._num_rows = self._shared_row
        features, self._feature_rows = self._feature_rows[1], self._feature_rows[::-1]
        states = [features, *(self.rows(len(units)) for units in made.state_units[1:])]
        projected = [self._project(made, number) for number in range(len(made.projections))]
        parameters = self.rows(made.num_outputs)
        kind = self._head_number(head.code)
        first_setting = len(self._settings)
        self._settings += head.settings
        weight, bias = self._array(made.final_weight), self._array(made.final_bias[..., 0])
        if head.output_scale is not None:
            scale = self._array(head.output_scale)
            weight, bias = weight * scale[:, None], bias * scale
        final = made.state_units[made.final_source]
        layers = [
            _PlainLayer(layer, self._array(layer.weight), self._array(layer.bias[:, 0]))
            for layer in made.layers
        ]
        for degree in range(self.num_features):
            for layer in layers:
                self._advance(layer, degree, states, projected)
            seen = final.ends[degree]
            self._affine(
                weight[degree, :, :seen], bias[degree], source=states[made.final_source],
                raw=parameters,
            )  # fmt: skip
            target = features + degree
            value = int(self._values[degree])
            self._table.append([kind, parameters, value, target, first_setting, 0, 0, 0])
        self._values = np.arange(self.num_features) + features

    def finish(self) -> WalkProgram:
        """Give the program of everything that was written."""
        return WalkProgram(
            np.array(self._table, dtype=np.int64).reshape(-1, NUM_FIELDS),
            _joined(self._weights, self.dtype),
            _joined(self._biases, self.dtype),
            np.array(self._settings, dtype=self.dtype),
            tuple(self._heads),
            self._most_rows,
            self.num_features,
            self.num_context,
            self._input_row,
            self._value_row,
            self._log_det_row,
            np.ascontiguousarray(self._values, dtype=np.int64),
        )

    def _project(self, made: SortedMade, number: int) -> int:
        projection = made.projections[number]
        weight, bias = self._array(projection.weight), self._array(projection.bias[:, 0])
        target = self.rows(len(weight))
        raw, activated = (NONE, target) if projection.is_activated else (target, NONE)
        self._affine(weight, bias, source=self._context_row, raw=raw, activated=activated)
        return target

    def _advance(
        self, layer: _PlainLayer, degree: int, states: list[int], projected: list[int]
    ) -> None:
        """Compute the units of one degree of a layer."""
        if not layer.layer.units.has(degree):
            return
        route, rows = layer.layer.route, layer.layer.units.slice_of(degree)
        seen = layer.layer.source_units.ends[degree]
        added = NONE
        if route.context is not None:
            added = projected[route.context] + rows.start
        if route.residual is not None:
            added = states[route.residual] + rows.start
        raw, activated = (
            NONE if target is None else states[target] + rows.start
            for target in (route.raw_target, route.activated_target)
        )
        self._affine(
            layer.weight[rows, :seen], layer.bias[rows], source=states[route.source],
            added=added, raw=raw, activated=activated,
        )  # fmt: skip

    def _affine(
        self,
        weight: Array,
        bias: Array,
        *,
        source: int,
        added: int = NONE,
        raw: int = NONE,
        activated: int = NONE,
    ) -> None:
        """Write weight (rows, sources) as operations of at most `rows_at_once` rows."""
        for first in range(0, len(weight), self.rows_at_once):
            piece = weight[first : first + self.rows_at_once]
            places = [NONE if row == NONE else row + first for row in (added, raw, activated)]
            self._table.append(
                [len(piece), piece.shape[1], source, self._num_weights, self._num_biases, *places]
            )
            # Source-major: the kernel reads weights strictly in order.
            self._weights.append(piece.T.ravel())
            self._biases.append(bias[first : first + self.rows_at_once])
            self._num_weights += piece.size
            self._num_biases += len(piece)

    def _array(self, values: Tensor) -> Array:
        return values.detach().cpu().numpy().astype(self.dtype, copy=False)

    def _head_number(self, head: HeadCode) -> int:
        if head not in self._heads:
            self._heads.append(head)
        return self.rows_at_once + 1 + self._heads.index(head)


@dataclass(frozen=True, eq=False)
class _PlainLayer:
    layer: Layer
    weight: Array
    bias: Array


def write_program(
    steps: FlowSteps, dtype: torch.dtype, *, rows_at_once: int = ROWS_AT_ONCE
) -> WalkProgram:
    """Write the inverse of a whole flow; its embedding is made of linear layers and ReLU."""
    numpy_dtype = np.float32 if dtype == torch.float32 else np.float64
    writer = ProgramWriter(steps.num_features, numpy_dtype, steps.num_context or 0, rows_at_once)
    writer.embed(steps.embedding_layers or [])
    for step in reversed(steps.steps):
        if isinstance(step, PermutationStep):
            writer.permute(step.inverse.numpy())
        else:
            writer.walk(step.made, step.head)
    return writer.finish()


def _joined(pieces: Iterable[Array], dtype: type[np.floating]) -> Array:
    return np.concatenate([np.empty(0, dtype), *pieces]).astype(dtype, copy=False)
