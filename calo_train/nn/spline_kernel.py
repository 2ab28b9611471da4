"""The spline and its gradients as compiled kernels, for training on the CPU.

The doors are those of `calo_train.nn.rational_quadratic` and give the same. Values (R, n) and
parameters (R, P, n) are read in vectors along n; each is done with from bin to gradient while it
is in registers, so that memory is passed once. The last vector of a row overlaps the one before
it: every output is a function of the inputs alone, and is written twice with equal bits.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from calo_train.errors import MachineError
from calo_train.kernels.code import Code
from calo_train.kernels.compiler import Library, compile_library, this_machine
from calo_train.kernels.mathematics import log
from calo_train.kernels.threads import run_in_ranges
from calo_train.kernels.values import PRECISIONS, Vector
from calo_train.nn.spline_code import SplineKind, SplineSettings, invert_spline
from calo_train.nn.spline_gradient_code import PointCode, write_parameter_gradients

if TYPE_CHECKING:
    import numpy.typing as npt
    from llvmlite import ir

    from calo_train.kernels.integers import Integer
    from calo_train.nn.rational_quadratic import SplineShape

_MAP = ("given", "parameters", "settings", "mapped", "logarithms")
_GRADIENT = (
    "given", "parameters", "settings", "by_mapped", "by_logarithms", "by_given", "by_parameters",
)  # fmt: skip
_COUNTS = (
    ("num_values", "integer"),  # of a row
    ("wants_parameters", "integer"),
    ("first", "integer"),  # vector, counted through all rows
    ("end", "integer"),
)
_SIGNATURES = {
    name: (*((pointer, "pointer") for pointer in pointers), *_COUNTS)
    for name, pointers in {
        "forward": _MAP,
        "inverse": _MAP,
        "forward_gradients": _GRADIENT,
        "inverse_gradients": _GRADIENT,
    }.items()
}
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}
_LINE_BYTES = 64
_GRAIN = 256  # vectors; fewer take less time than handing them to another thread
_log = logging.getLogger(__name__)


def can_serve(*tensors: Tensor) -> bool:
    """Tell whether the kernels can map these tensors: plain ones in the memory of the CPU."""
    if torch.compiler.is_compiling() or not all(map(_is_plain, tensors)):
        return False
    # Transforms of functions and modes that record operations must see operations of torch.
    if torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack():
        return False
    return _can_compile(_DTYPES[tensors[0].dtype])


def forward(features: Tensor, parameters: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor]:
    """Map features to base values and give log|d value / d feature|."""
    return _map("forward", features, parameters, shape)


def inverse(values: Tensor, parameters: Tensor, shape: SplineShape) -> tuple[Tensor, Tensor]:
    """Map base values to features and give log|d feature / d value|."""
    return _map("inverse", values, parameters, shape)


def inverse_features(values: Tensor, parameters: Tensor, shape: SplineShape) -> Tensor:
    """Map base values to features."""
    return inverse(values, parameters, shape)[0]


def forward_gradients(
    features: Tensor,
    parameters: Tensor,
    upstream: tuple[Tensor, ...],
    shape: SplineShape,
    *,
    wants_parameters: bool,
) -> tuple[Tensor, Tensor | None]:
    """Carry gradients by values and log-slopes back to features and, if wanted, parameters."""
    arguments = (features, parameters, upstream)
    return _carry_back("forward_gradients", *arguments, shape, wants_parameters=wants_parameters)


def inverse_gradients(
    features: Tensor,
    parameters: Tensor,
    upstream: tuple[Tensor, ...],
    shape: SplineShape,
    *,
    wants_parameters: bool,
) -> tuple[Tensor, Tensor | None]:
    """Carry gradients by features and log|d feature / d value| back to values and parameters.

    `features` are what the inverse gave.
    """
    arguments = (features, parameters, upstream)
    return _carry_back("inverse_gradients", *arguments, shape, wants_parameters=wants_parameters)


def _map(
    name: str, given: Tensor, parameters: Tensor, shape: SplineShape
) -> tuple[Tensor, Tensor]:
    inputs = _padded(given, parameters)
    outputs = torch.empty_like(inputs[0]), torch.empty_like(inputs[0])
    _run(name, shape, inputs, outputs)
    mapped, logarithms = (item[..., : given.shape[-1]] for item in outputs)
    return mapped, logarithms


def _carry_back(
    name: str,
    given: Tensor,
    parameters: Tensor,
    upstream: tuple[Tensor, ...],
    shape: SplineShape,
    *,
    wants_parameters: bool,
) -> tuple[Tensor, Tensor | None]:
    own, own_parameters, *own_upstream = _padded(given, parameters, *upstream)
    by_given = torch.empty_like(own)
    by_parameters = torch.empty_like(own_parameters) if wants_parameters else None
    inputs = (own, own_parameters, *own_upstream)
    _run(name, shape, inputs, (by_given, by_parameters))
    num_values = given.shape[-1]
    if by_parameters is not None:
        by_parameters = by_parameters[..., :num_values]
    return by_given[..., :num_values], by_parameters


def _padded(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Make tensors contiguous, and rows at least one vector long."""
    num_values, lanes = tensors[0].shape[-1], _lanes(_DTYPES[tensors[0].dtype])
    if 0 < num_values < lanes:
        return tuple(functional.pad(item, (0, lanes - num_values)) for item in tensors)
    return tuple(item.contiguous() for item in tensors)


def _run(
    name: str,
    shape: SplineShape,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor | None, ...],
) -> None:
    given, parameters, *upstream = inputs
    if not given.numel():
        return
    dtype = _DTYPES[given.dtype]
    kernel = _library(name, dtype, shape.kind).functions[name]
    settings = _settings(shape, dtype)
    addresses = [0 if item is None else item.data_ptr() for item in (*upstream, *outputs)]
    num_values = given.shape[-1]
    per_row = -(-num_values // _lanes(dtype))

    def work(first: int, end: int) -> None:
        kernel(
            given.data_ptr(), parameters.data_ptr(), settings.ctypes.data, *addresses,
            num_values, int(outputs[-1] is not None), first, end,
        )  # fmt: skip

    num_vectors = given.numel() // num_values * per_row
    run_in_ranges(work, num_vectors, grain=_GRAIN, num_threads=torch.get_num_threads())


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor is what lies in its memory: no subclass, no sign to be applied."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype in _DTYPES
        and not tensor.is_neg()
    )


@cache
def _lanes(dtype: str) -> int:
    return this_machine().vector_bytes // PRECISIONS[dtype].num_bytes


@cache
def _settings(shape: SplineShape, dtype: str) -> npt.NDArray[np.floating]:
    return np.array(shape.settings, dtype=dtype)


@cache
def _can_compile(dtype: str) -> bool:
    """Try it with the smallest kernel; False, with a line in the log, where the machine cannot."""
    try:
        _library("forward", dtype, SplineKind(1, has_linear_tails=True))
    except MachineError as error:
        _log.info("splines are computed in torch: %s", error.what)
        return False
    return True


@cache
def _library(name: str, dtype: str, kind: SplineKind) -> Library:
    """Compile the kernel `name`; each on its own, since few runs need all."""
    signature = _SIGNATURES[name]

    def write(module: ir.Module) -> None:
        precision = PRECISIONS[dtype]
        code = Code(module, name, signature, precision=precision, lanes=_lanes(dtype))
        _SplineLoop(code, kind).write(name)
        code.finish()

    return compile_library(
        write,
        {name: signature},
        this_machine(),
        purpose="the spline kernel",
        key=f"{name} {dtype} {kind}",
    )


class _SplineLoop:
    """Writes the loop over vectors with one of the four kernels inside it."""

    def __init__(self, code: Code, kind: SplineKind) -> None:
        self._code = code
        self._kind = kind
        self._settings = SplineSettings.read(code.pointer("settings").spread)

    def write(self, name: str) -> None:
        """Write the whole function."""
        code = self._code
        num_values = code.integer("num_values")
        per_row = (num_values + (code.lanes - 1)) // code.lanes
        body = {
            "forward": self._forward,
            "inverse": self._inverse,
            "forward_gradients": self._forward_gradients,
            "inverse_gradients": self._inverse_gradients,
        }[name]
        with code.loop(code.integer("first"), code.integer("end")) as number:
            row = number // per_row
            lane = ((number - row * per_row) * code.lanes).minimum(num_values - code.lanes)
            body(_Place(code, row, lane, num_values, self._kind.num_parameters))

    def _forward(self, place: _Place) -> None:
        given = place.value("given")
        point = PointCode.of(given, place.parameter, self._kind, self._settings)
        own = point.bin
        mapped = own.height.times_plus(point.share(), own.left_y)
        place.store("mapped", point.is_inside.select(mapped, self._outside(given)))
        log_outside = self._outside(self._code.constant(0.0))
        place.store("logarithms", point.is_inside.select(log(point.derivative), log_outside))

    def _inverse(self, place: _Place) -> None:
        given = place.value("given")
        inverted = invert_spline(given, place.parameter, self._kind, self._settings)
        place.store("mapped", inverted.features)
        place.store("logarithms", inverted.log_abs_det())

    def _forward_gradients(self, place: _Place) -> None:
        place.prefetch_parameters()
        point, by_value, by_log = self._point_and_upstream(place)
        by_feature = by_value.times_plus(point.derivative, by_log * point.bend() / point.bin.width)
        self._finish_gradients(place, point, by_feature, (by_value, by_log))

    def _inverse_gradients(self, place: _Place) -> None:
        place.prefetch_parameters()
        point, by_feature, by_log = self._point_and_upstream(place)
        bent = by_log * point.bend() / point.bin.width
        by_value = (by_feature - bent) / point.derivative
        self._finish_gradients(place, point, by_value, (-by_value, -by_log))

    def _point_and_upstream(self, place: _Place) -> tuple[PointCode, Vector, Vector]:
        given = place.value("given")
        point = PointCode.of(given, place.parameter, self._kind, self._settings)
        by_mapped, by_log = (
            point.is_inside.select(place.value(name), 0.0)
            for name in ("by_mapped", "by_logarithms")
        )
        return point, by_mapped, by_log

    def _finish_gradients(
        self, place: _Place, point: PointCode, by_given: Vector, upstream: tuple[Vector, Vector]
    ) -> None:
        outside = self._outside(place.value("by_mapped"))
        place.store("by_given", point.is_inside.select(by_given, outside))
        with self._code.when(self._code.integer("wants_parameters") >= 1):
            write_parameter_gradients(
                point, upstream, self._kind, self._settings, place.store_by_parameter
            )

    def _outside(self, value: Vector) -> Vector:
        is_linear = self._kind.has_linear_tails
        return value if is_linear else self._code.constant(float("nan"))


class _Place:
    """Where one vector of values, its parameters and what is computed of them lie."""

    def __init__(
        self, code: Code, row: Integer, lane: Integer, num_values: Integer, num_parameters: int
    ) -> None:
        self._code = code
        self._num_values = num_values
        self._start = row * num_values + lane
        self._num_parameters = num_parameters
        self._first_parameter = row * num_parameters * num_values + lane

    def value(self, name: str) -> Vector:
        return self._code.pointer(name).vector(self._start)

    def store(self, name: str, vector: Vector) -> None:
        self._code.pointer(name).store(vector, self._start)

    def parameter(self, index: int) -> Vector:
        return self._code.pointer("parameters").vector(self._place_of(index))

    def store_by_parameter(self, index: int, vector: Vector) -> None:
        self._code.pointer("by_parameters").store(vector, self._place_of(index))

    def prefetch_parameters(self) -> None:
        """Ask for the next cache line of each parameter: more streams than hardware follows."""
        ahead = _LINE_BYTES // self._code.precision.num_bytes
        for name, to_write in (("parameters", False), ("by_parameters", True)):
            for index in range(self._num_parameters):
                place = self._code.pointer(name).at(self._place_of(index) + ahead)
                self._code.prefetch(place, to_write=to_write)

    def _place_of(self, index: int) -> Integer:
        return self._first_parameter + self._num_values * index
