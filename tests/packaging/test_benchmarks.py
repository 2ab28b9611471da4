"""The benchmark of the inverse measures what it says, at sizes that take seconds."""

from __future__ import annotations

import importlib
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
import torch
from command_interface import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

CASE_NAMES = (
    "l2lflows-energy", "l2lflows-causal", "supercalo-upsampler", "icaloflow-layer", "caloflow",
    "supercalo-coarse",
)  # fmt: skip


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of benchmarks or scripts as its own directory would."""
    for folder in ("benchmarks", "scripts"):
        monkeypatch.syspath_prepend(str(CHECKOUT / folder))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize("name", CASE_NAMES)
def test_flow_has_the_published_number_of_weights(name: str, load: Any) -> None:
    """`build` refuses another number; the meta device counts without memory."""
    cases = {case.name: case for case in load("flow_cases").CASES}
    assert set(cases) == set(CASE_NAMES)
    with torch.device("meta"):
        cases[name].build(torch.float32)


@torch.no_grad()
def test_folded_masks_leave_nflows_inverse_as_it_is(load: Any) -> None:
    """The reference of the equality column is nflows' own inverse, only sooner."""
    case = load("flow_cases").square_case(7)
    noise, context = case.draw(5, torch.float64)
    expected = case.build(torch.float64)._transform.inverse(noise, context)
    folded = load("inverse_works").fold_masks(case.build(torch.float64))
    for found, wanted in zip(folded._transform.inverse(noise, context), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


@torch.no_grad()
def test_rows_of_the_inverse_benchmark_fill_the_performance_page(
    load: Any, tmp_path: Path
) -> None:
    inverse, output = load("inverse"), tmp_path / "inverse.json"
    bench = inverse.Bench(rounds=1, seconds=0.0, stop=time.monotonic() + 60, output=output)
    case = load("flow_cases").CASES[0]
    inverse.compare(bench, case)
    inverse.check_product(bench, case, 2)
    inverse.measure_growth(bench, [2, 3])
    inverse.measure_case(bench, case, [2], 1)
    bench.stop = 0.0
    inverse.measure_case(bench, case, [3], 1)
    hardware = {"processor": "CPU", "cores": 2, "load_at_start": 0.1}
    bench.found |= {"program": {"torch": "2"}, "hardware": hardware}
    bench.found |= {"first_inverse": {}, "cases": [asdict(case)]}
    bench.write(is_complete=False)
    page = load("performance_inverse").inverse_section(json.loads(output.read_text()))
    assert bench.found["equality"][0]["features"] < inverse.LARGEST_DIFFERENCE
    assert page.count(f"| {case.title} | 30 | 2 | float") == 2
    assert "--minutes were over" in page
    assert "interrupted" in page
