"""Training step of L2LFlows' causal flows, stacked, against nflows flows one after the other.

The flow has the published shape: 100 features, 4 MADEs with 2 hidden layers of 128, splines of 8
bins, a context of 64 after the embedding, which is left out (arXiv:2302.11594). Both sides start
from the same weights, see the same features and take fused AdamW steps in float32, in turns in one
process; figures are medians. nflows' flows hold its own spline. "without splines" is the stacked
step with a cheap elementwise map in their place: what is left is products, permutations and Adam.

    python benchmarks/training_step.py [--threads 1] [--rounds 5] [--flows 1 10 30] [--batch 256]
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows import Flow
from nflows.transforms import (
    CompositeTransform,
    MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    ReversePermutation,
)
from stopwatch import clock, medians
from torch import Tensor

from calo_train.nn import stacked_flows
from calo_train.nn.stacked_flows import join_flows
from calo_train.training.config import TrainerConfig
from calo_train.training.grouping import largest_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calo_train.nn.spline import SplineShape

FEATURES, CONTEXT, NUM_MADES, HIDDEN, NUM_BINS = 100, 64, 4, 128, 8
LEARNING_RATE = 1e-4
SPREAD = 2.0  # of the features: all but a few lie inside the splines
RESULTS = Path(__file__).parent / "results" / "training_step.json"
LARGEST_DIFFERENCE = 1e-3  # of a loss in float32 after the last step, in nats of some 300


def causal_flow() -> Flow:
    """Build a flow of the published shape from nflows alone."""
    transforms = []
    for _ in range(NUM_MADES):
        made = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            features=FEATURES, hidden_features=HIDDEN, context_features=CONTEXT,
            num_bins=NUM_BINS, tails="linear", tail_bound=14.0, num_blocks=1,
            use_residual_blocks=False, min_bin_width=1e-6, min_bin_height=1e-6,
            min_derivative=1e-6,
        )  # fmt: skip
        transforms += [ReversePermutation(FEATURES), made]
    return Flow(CompositeTransform(transforms), StandardNormal([FEATURES]))


class Loop:
    """Separate flows with an optimiser each."""

    def __init__(self, flows: list[Flow], features: list[Tensor], contexts: list[Tensor]) -> None:
        self._inputs = list(zip(flows, features, contexts, strict=True))
        self._optimisers = [
            torch.optim.AdamW(flow.parameters(), lr=LEARNING_RATE, fused=True) for flow in flows
        ]
        self.losses: list[float] = []

    def step(self) -> None:
        """Step one flow after the other."""
        losses = []
        for (flow, features, context), optimiser in zip(
            self._inputs, self._optimisers, strict=True
        ):
            optimiser.zero_grad()
            loss = -flow.log_prob(features, context=context).mean()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        self.losses = losses


class Stacks:
    """The same flows as a fit on their device trains them, with one optimiser."""

    def __init__(self, flows: list[Flow], features: list[Tensor], contexts: list[Tensor]) -> None:
        accelerator = "gpu" if features[0].is_cuda else "cpu"
        joined = join_flows(flows, largest=largest_stack(TrainerConfig(accelerator=accelerator)))
        for _, stack in joined:
            stack.to(features[0].device)
        self._inputs = [
            (stack, [features[n] for n in members], [contexts[n] for n in members])
            for members, stack in joined
        ]
        parameters = [p for _, stack in joined for p in stack.parameters()]
        self._optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)
        self.losses: list[float] = []

    def step(self) -> None:
        """Step all flows."""
        self._optimiser.zero_grad()
        losses = []
        for stack, features, contexts in self._inputs:
            of_stack = -stack.log_prob(features, contexts).mean(dim=1)
            of_stack.sum().backward()
            losses.append(of_stack.detach())
        self._optimiser.step()
        self.losses = torch.cat(losses).tolist()


class _CheapMap(torch.autograd.Function):
    """In place of a spline: values and parameters are read once, in both directions."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(parameters)
        return values * 0.5, values * 0.1

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (parameters,) = ctx.saved_tensors
        return gradients[0] * 0.5, torch.full_like(parameters, 1e-6)


@contextmanager
def without_splines() -> Iterator[None]:
    """Leave the splines out of stacked flows."""

    def cheap(values: Tensor, parameters: Tensor, _: SplineShape) -> tuple[Tensor, Tensor]:
        mapped: tuple[Tensor, Tensor] = _CheapMap.apply(values, parameters)
        return mapped

    splines, stacked_flows.spline_forward = stacked_flows.spline_forward, cheap
    try:
        yield
    finally:
        stacked_flows.spline_forward = splines


def measure(
    num_flows: int, batch: int, rounds: int, *, device: torch.device | None = None
) -> dict[str, Any]:
    """Time the steps of some flows; the first step of each side is not counted.

    Every step ends with losses on the host, so a GPU is waited for.
    """
    torch.manual_seed(num_flows)
    flows = [causal_flow() for _ in range(num_flows)]
    features = [(SPREAD * torch.randn(batch, FEATURES)).to(device) for _ in flows]
    contexts = [torch.randn(batch, CONTEXT).to(device) for _ in flows]
    stacks, bare = (Stacks(flows, features, contexts) for _ in range(2))
    loop = Loop([copy.deepcopy(flow).to(device) for flow in flows], features, contexts)
    samples: dict[str, list[tuple[float, float]]] = {
        "nflows": [], "stacked": [], "without_splines": []
    }  # fmt: skip
    loop.step()
    stacks.step()
    if device is not None:
        with without_splines():
            bare.step()  # on a GPU the first step of a shape costs more than others
    for _ in range(rounds):
        samples["nflows"].append(clock(loop.step))
        samples["stacked"].append(clock(stacks.step))
        with without_splines():
            samples["without_splines"].append(clock(bare.step))
    theirs, ours = loop.losses, stacks.losses
    found = {
        name: dict(zip(("cpu_s", "wall_s"), medians(values), strict=True))
        for name, values in samples.items()
    }
    return {
        "flows": num_flows,
        "batch": batch,
        **found,
        "ratio_cpu": found["nflows"]["cpu_s"] / found["stacked"]["cpu_s"],
        "ratio_wall": found["nflows"]["wall_s"] / found["stacked"]["wall_s"],
        "share_of_splines": 1 - found["without_splines"]["cpu_s"] / found["stacked"]["cpu_s"],
        "largest_difference_of_losses": max(abs(a - b) for a, b in zip(theirs, ours, strict=True)),
    }


def machine(threads: int) -> dict[str, Any]:
    """Say what the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "threads": threads,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "nflows", "numpy")},
    }


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flows", type=int, nargs="+", default=[1, 10, 30])
    parser.add_argument("--batch", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    about = machine(arguments.threads)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    rows = []
    for num_flows in arguments.flows:
        row = measure(num_flows, arguments.batch, arguments.rounds)
        rows.append(row)
        print(
            f"{num_flows:>3} flows: nflows {row['nflows']['cpu_s']:7.3f} s, stacked "
            f"{row['stacked']['cpu_s']:7.3f} s, ratio {row['ratio_cpu']:.2f} (CPU) "
            f"{row['ratio_wall']:.2f} (wall), splines {100 * row['share_of_splines']:.0f} %, "
            f"largest difference of a loss {row['largest_difference_of_losses']:.1e}",
            flush=True,
        )
    RESULTS.parent.mkdir(exist_ok=True)
    result = {"machine": about, "rounds": arguments.rounds, "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {RESULTS}")
    if any(row["largest_difference_of_losses"] > LARGEST_DIFFERENCE for row in rows):
        raise SystemExit(f"losses differ by more than {LARGEST_DIFFERENCE}")


if __name__ == "__main__":
    main()
