"""The walk on a GPU: in Triton's interpreter everywhere, compiled where there is a GPU."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from calo_train.errors import MachineError
from calo_train.nn import pack, packed_flow
from calo_train.nn.flow_steps import read_flow
from calo_train.nn.flows import MaskedSplineFlow, embedding_network
from calo_train.nn.triton_walk import TritonWalk

if TYPE_CHECKING:
    from nflows.flows import Flow

# Largest differences from nflows in float64: features and log-determinants of small flows.
EXACT = 1e-10
ROUNDED = 1e-3  # float32: a log-slope is a quotient of small numbers; 1e-5 is typical
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA")


@needs_triton
@pytest.mark.parametrize("unroll", [1, 2])
def test_interpreted_kernel_equals_nflows(unroll: int) -> None:
    """Bins, tails, heads, blocks, contexts and idle lanes, without a GPU."""
    for case, differences in interpreted(str(unroll)).items():
        assert max(differences) < (EXACT if "float64" in case else ROUNDED), case


@needs_triton
def test_showers_that_take_turns_keep_their_bits() -> None:
    """Scratch memory is bounded: what does not fit waits for the next launch."""
    for dtype, found in interpreted("turns").items():
        assert found == {"launches": [1, 2], "has_equal_bits": True}, dtype


def interpreted(argument: str) -> dict[str, Any]:
    """Run interpreted_walk.py in a process of its own."""
    script = Path(__file__).with_name("interpreted_walk.py")
    done = subprocess.run(
        [sys.executable, str(script), argument], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_machine_without_triton_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calo_train.nn.triton_kernel", None)
    steps = read_flow(MaskedSplineFlow(1, 1, 8, 4, 6.0, "reverse", 1e-3, 0.0).build(4, 1).eval())
    with pytest.raises(MachineError, match="Triton is not there"):
        TritonWalk(steps, torch.float32, torch.device("cpu"))


def test_kernel_for_gpus_is_refused_on_a_cpu() -> None:
    flow = MaskedSplineFlow(1, 1, 8, 4, 6.0, "reverse", 1e-3, 0.0).build(4, 1).eval()
    with pytest.raises(MachineError, match="triton is for cuda, they are wanted on cpu"):
        pack(flow, backend="triton")


@pytest.fixture(scope="module")
def published() -> Flow:
    """A causal flow of L2LFlows with its embedding network (2302.11594), curved splines."""
    torch.manual_seed(8)
    shape = MaskedSplineFlow(4, 1, 128, 8, 14.0, "reverse", 1e-6, 0.0)
    flow = shape.build(100, 64, embedding_network(532, [128], 64))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return flow.eval()


@needs_gpu
@pytest.mark.parametrize("number", [1, 37, 1000])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, EXACT), (torch.float32, 1e-3)])
def test_gpu_equals_nflows_on_a_published_flow(
    published: Flow, number: int, dtype: torch.dtype, bound: float
) -> None:
    """The bound of float32 is that of the CPU's kernel: 99.9 % lie within 2e-5."""
    random = torch.Generator().manual_seed(number)
    noise = torch.randn(number, 100, generator=random)
    context = torch.randn(number, 532, generator=random)
    gpu = torch.device("cuda")
    packed = pack(published, dtype=dtype, device=gpu)
    assert packed.backend == "triton"
    reference = pack(published, dtype=torch.float64, device=gpu, backend="reference")
    found, log_det = packed.inverse_with_log_det(noise, context)
    expected, expected_log_det = reference.inverse_with_log_det(noise, context)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=bound)
    torch.testing.assert_close(log_det.double(), expected_log_det, rtol=0, atol=100 * bound)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_on_a_gpu_do_not_depend_on_company(published: Flow, dtype: torch.dtype) -> None:
    """S1: a shower's place in a batch, and the batch's size."""
    noise, context = torch.randn(333, 100), torch.randn(333, 532)
    packed = pack(published, dtype=dtype, device=torch.device("cuda"))
    whole, whole_log_det = packed.inverse_with_log_det(noise, context)
    for first, end in ((0, 1), (5, 12), (63, 130), (300, 333), (9, 9)):
        part, log_det = packed.inverse_with_log_det(noise[first:end], context[first:end])
        assert torch.equal(part, whole[first:end])
        assert torch.equal(log_det, whole_log_det[first:end])
        assert torch.equal(packed.inverse(noise[first:end], context[first:end]), part)


@needs_gpu
def test_activation_that_the_kernel_does_not_know_goes_through_torch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    packed_flow._tell_once.cache_clear()  # told once a process
    embedding = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 7))
    flow = MaskedSplineFlow(1, 1, 16, 8, 6.0, "reverse", 1e-3, 0.0).build(6, 7, embedding).eval()
    assert pack(flow, device=torch.device("cuda")).backend == "torch"
    assert "flows are inverted in torch" in caplog.text
