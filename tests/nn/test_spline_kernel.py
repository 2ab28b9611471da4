"""The compiled spline against the formulas in torch, and what it may be called with."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from calo_train.errors import MachineError, UsageError
from calo_train.nn import rational_quadratic, spline_kernel
from calo_train.nn.spline import SplineShape, spline_forward

# Rounding of a knot, 8 units of the last place, seen through log-slopes that change by up to 1e3
# a unit of the features: 2e-12, and as much again for either side.
_FLOAT64 = 1e-11

SHAPES = [
    SplineShape(1, 3.0, 1e-3, 1e-3, 1e-3),
    SplineShape(2, 3.0, 1e-3, 1e-2, 1e-4),
    SplineShape(8, 14.0, 1e-6, 1e-6, 1e-6),
    SplineShape(1, None, 1e-3, 1e-3, 1e-3),
    SplineShape(5, None, 1e-3, 1e-2, 1e-3),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
directions = pytest.mark.parametrize("direction", ["forward", "inverse"])


def _inputs(
    shape: SplineShape, *size: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Values, a tenth of them outside, parameters and gradients by both outputs."""
    random = torch.Generator().manual_seed(sum(size))
    *leading, num_values = size
    uniform = torch.rand(*size, generator=random, dtype=torch.float64)
    values = shape.low + (shape.high - shape.low) * (1.1 * uniform - 0.05)
    parameters = torch.randn(
        *leading, shape.num_parameters, num_values, generator=random, dtype=torch.float64
    )
    upstream = torch.randn(2, *size, generator=random, dtype=torch.float64)
    return values.to(dtype), parameters.to(dtype), tuple(upstream.to(dtype))


def _computed(
    formulas: object,
    direction: str,
    inputs: tuple[Tensor, Tensor, tuple[Tensor, Tensor]],
    shape: SplineShape,
) -> list[Tensor]:
    """Both outputs and both gradients, in float64."""
    values, parameters, upstream = inputs
    mapped = getattr(formulas, direction)(values, parameters, shape)
    gradients = getattr(formulas, f"{direction}_gradients")(
        values, parameters, upstream, shape, wants_parameters=True
    )
    return [item.double() for item in (*mapped, *gradients)]


@shapes
@directions
@pytest.mark.parametrize("num_values", [1, 3, 4, 7, 8, 9, 100])
def test_float64_equals_torch(shape: SplineShape, direction: str, num_values: int) -> None:
    """Rows shorter than a vector, as long, and with a rest that overlaps."""
    inputs = _inputs(shape, 2, 3, num_values)
    found = _computed(spline_kernel, direction, inputs, shape)
    expected = _computed(rational_quadratic, direction, inputs, shape)
    torch.testing.assert_close(found, expected, rtol=_FLOAT64, atol=_FLOAT64, equal_nan=True)


@shapes
@directions
@pytest.mark.parametrize("num_values", [1, 7, 100])
def test_float32_is_as_exact_as_torch(shape: SplineShape, direction: str, num_values: int) -> None:
    inputs = _inputs(shape, 2000 // num_values, num_values, dtype=torch.float32)
    values, parameters, upstream = inputs
    precise = (values.double(), parameters.double(), tuple(item.double() for item in upstream))
    expected = _computed(rational_quadratic, direction, precise, shape)
    found = _computed(spline_kernel, direction, inputs, shape)
    by_torch = _computed(rational_quadratic, direction, inputs, shape)
    for ours, theirs, exact in zip(found, by_torch, expected, strict=True):
        assert torch.equal(ours.isnan(), exact.isnan())
        scale = exact.abs().clamp(min=1.0)
        error, usual = (((item - exact) / scale).abs().nanmean() for item in (ours, theirs))
        assert error < 1.5 * usual + torch.finfo(torch.float32).eps


@directions
def test_views_give_the_bits_of_their_copies(direction: str) -> None:
    shape = SHAPES[2]
    values, parameters, upstream = _inputs(shape, 6, 33)
    views = (
        values.T.contiguous().T,
        parameters.permute(2, 1, 0).contiguous().permute(2, 1, 0)[:, :, ::1],
        (upstream[0].T.contiguous().T, upstream[1]),
    )
    found = _computed(spline_kernel, direction, views, shape)
    expected = _computed(spline_kernel, direction, (values, parameters, upstream), shape)
    assert all(map(torch.equal, found, expected))


def test_number_of_threads_does_not_change_bits() -> None:
    shape = SHAPES[2]
    inputs = _inputs(shape, 7, 1000)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(_computed(spline_kernel, "forward", inputs, shape))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


def test_no_values_are_no_work() -> None:
    shape = SHAPES[2]
    for size in ((0,), (3, 0), (0, 5)):
        found = _computed(spline_kernel, "forward", _inputs(shape, *size), shape)
        assert [item.numel() for item in found] == [0] * 4


def test_gradient_of_parameters_is_left_out_where_it_is_not_wanted() -> None:
    shape = SHAPES[2]
    values, parameters, upstream = _inputs(shape, 4, 20)
    both = spline_kernel.forward_gradients(
        values, parameters, upstream, shape, wants_parameters=True
    )
    alone = spline_kernel.forward_gradients(
        values, parameters, upstream, shape, wants_parameters=False
    )
    assert torch.equal(alone[0], both[0])
    assert alone[1] is None


def test_it_serves_plain_tensors_on_the_cpu_only() -> None:
    plain = torch.zeros(3)
    assert spline_kernel.can_serve(plain, torch.nn.Parameter(plain))
    assert not spline_kernel.can_serve(plain.half())
    assert not spline_kernel.can_serve(plain.to("meta"))
    assert not spline_kernel.can_serve(torch.zeros(3, dtype=torch.complex64).conj().imag)
    with FakeTensorMode():
        assert not spline_kernel.can_serve(torch.zeros(3))
    seen: list[bool] = []
    torch.func.vmap(lambda item: seen.append(spline_kernel.can_serve(item)) or item)(plain)
    assert seen == [False]


def test_machine_without_compiler_computes_in_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise MachineError("no code can be loaded", where="here", do="nothing")

    shape = SHAPES[2]
    values, parameters, _ = _inputs(shape, 4, 20)
    expected = rational_quadratic.forward(values, parameters, shape)
    spline_kernel._can_compile.cache_clear()
    monkeypatch.setattr(spline_kernel, "_library", refuse)
    with caplog.at_level(logging.INFO):
        found = [spline_forward(values, parameters, shape) for _ in range(2)]
    spline_kernel._can_compile.cache_clear()
    assert all(
        torch.equal(*pair) for mapped in found for pair in zip(mapped, expected, strict=True)
    )
    assert caplog.text.count("no code can be loaded") == 1


def test_parameters_on_another_axis_are_refused() -> None:
    """A kernel would read past their end."""
    shape = SHAPES[2]
    values, parameters, _ = _inputs(shape, 4, 20)
    with pytest.raises(UsageError, match=r"expected \(4, 23, 20\)"):
        spline_forward(values, parameters.movedim(-2, 0), shape)
