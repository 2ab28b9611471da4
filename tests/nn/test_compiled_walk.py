"""The compiled walk: bits that depend on the shower alone, machines, embedding networks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calo_train.errors import MachineError, UsageError
from calo_train.kernels.compiler import Machine, this_machine
from calo_train.nn import incremental_inverse, pack
from calo_train.nn.flow_steps import read_flow
from calo_train.nn.flows import MaskedSplineFlow, embedding_network
from calo_train.nn.walk_kernel import CompiledWalk
from calo_train.nn.walk_program import write_program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nflows.flows import Flow

EXACT = 1e-10  # float64 through three transforms; 1e-13 is typical
NUM_FEATURES, NUM_CONTEXT = 23, 5


@pytest.fixture(scope="module")
def flow() -> Flow:
    """A flow with an embedding network, curved splines and reversed features."""
    torch.manual_seed(8)
    shape = MaskedSplineFlow(3, 1, 40, 8, 6.0, "random", 1e-3, 0.0)
    flow = shape.build(NUM_FEATURES, 7, embedding_network(NUM_CONTEXT, [20, 9], 7))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow.double().eval()


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(4)
    noise = 2 * torch.randn(333, NUM_FEATURES, generator=random, dtype=torch.float64)
    return noise, torch.randn(333, NUM_CONTEXT, generator=random, dtype=torch.float64)


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_whole_flow_with_its_embedding_equals_nflows(
    flow: Flow, inputs: tuple[Tensor, Tensor]
) -> None:
    noise, context = inputs
    found, log_det = incremental_inverse(flow, noise, context, backend="compiled")
    expected, expected_log_det = incremental_inverse(flow, noise, context, backend="reference")
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(log_det, expected_log_det, rtol=0, atol=EXACT)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_of_a_shower_do_not_depend_on_its_company(
    flow: Flow, inputs: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    """S1: any number of showers from anywhere in a batch, on any number of threads."""
    noise, context = inputs
    packed = pack(flow, dtype=dtype, backend="compiled")
    torch.set_num_threads(1)
    whole, whole_log_det = packed.inverse_with_log_det(noise, context)
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        for first, end in ((0, 1), (0, 333), (5, 12), (64, 128), (63, 130), (300, 333), (9, 9)):
            part, log_det = packed.inverse_with_log_det(noise[first:end], context[first:end])
            assert torch.equal(part, whole[first:end])
            assert torch.equal(log_det, whole_log_det[first:end])
            assert torch.equal(packed.inverse(noise[first:end], context[first:end]), part)


@pytest.mark.parametrize("vector_bytes", [16, 32, 64])
def test_a_machine_without_extensions_gives_the_same_features(
    flow: Flow, inputs: tuple[Tensor, Tensor], vector_bytes: int
) -> None:
    """S5: without AVX and FMA, with registers of any width, features differ by rounding only."""
    known = this_machine()
    plain = "x86-64" if known.triple.startswith("x86_64") else "generic"
    machine = Machine(known.triple, plain, "", vector_bytes)
    noise, context = (values.numpy() for values in inputs)
    program = write_program(read_flow(flow), torch.float64)
    results = []
    for walk in (CompiledWalk(program), CompiledWalk(program, machine)):
        log_det = np.empty(len(noise))
        features = walk.invert(noise, context, log_det=log_det, num_threads=1)
        results.append((features, log_det))
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize(
    "embedding",
    [nn.Linear(3, 7), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 7))],
    ids=["linear", "tanh"],
)
def test_any_embedding_network_is_served(embedding: nn.Module) -> None:
    """One that the kernel does not know goes through torch, whole."""
    torch.manual_seed(2)
    shape = MaskedSplineFlow(2, 1, 16, 8, 6.0, "reverse", 1e-3, 0.0)
    flow = shape.build(6, 7, embedding).double().eval()
    noise, context = torch.randn(5, 6).double(), torch.randn(5, 3).double()
    is_known = isinstance(embedding, nn.Linear)
    assert pack(flow).backend == ("compiled" if is_known else "torch")
    found, _ = incremental_inverse(flow, noise, context)
    expected, _ = incremental_inverse(flow, noise, context, backend="reference")
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


def test_weights_that_are_not_finite_are_named() -> None:
    shape = MaskedSplineFlow(1, 1, 8, 4, 6.0, "reverse", 1e-3, 0.0)
    flow = shape.build(4, 1).eval()
    with torch.no_grad():
        flow._transform._transforms[1].autoregressive_net.initial_layer.weight[:] = torch.nan
    with pytest.raises(UsageError, match=r"initial_layer\.weight"):
        pack(flow)


def test_auto_falls_back_with_a_line_and_a_name_does_not(
    flow: Flow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MachineError("no compiler here", where="test", do="nothing")

    monkeypatch.setattr("calo_train.nn.packed_flow.CompiledWalk", fail)
    caplog.set_level(logging.INFO)
    assert [pack(flow).backend for _ in range(3)] == ["torch"] * 3
    assert caplog.text.count("flows are inverted in torch: no compiler here") == 1
    with pytest.raises(MachineError, match="no compiler"):
        pack(flow, backend="compiled")


def test_backend_that_is_not_known_is_refused(flow: Flow) -> None:
    with pytest.raises(UsageError, match="backend 'cuda' is unknown"):
        pack(flow, backend="cuda")
    with pytest.raises(MachineError, match="bfloat16"):
        pack(flow, dtype=torch.bfloat16, backend="compiled")


def test_context_that_is_not_finite_is_named(flow: Flow, inputs: tuple[Tensor, Tensor]) -> None:
    noise, context = inputs[0][:3], inputs[1][:3].clone()
    context[1, 2] = torch.nan
    with pytest.raises(UsageError, match="rows 1"):
        incremental_inverse(flow, noise, context)
