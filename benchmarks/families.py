"""Drawing showers by every family at its published size: exact teachers beside their students.

Weights are seeded: nflows' initial ones plus normal numbers of width 0.03, so that the splines are
curved. Statistics come from showers of the parametrised simulator. A student needs one network
pass a block (2110.11377, 2305.11934), a teacher the exact incremental inverse: both draw the same
batch from the same base noise, in turns, on one thread. Packing the weights is not part of it.

    python benchmarks/families.py [--rounds 5] [--only supercalo]
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from stopwatch import Work, take_turns

from calo_train.families.generator import Generator
from calo_train.kernels.noise import normals
from calo_train.machine import peak_memory, processor_name
from calo_train.quantities import Spectrum
from calo_train.sampling.request import SampleRequest
from calo_train.showers.dataset import open_dataset
from calo_train.showers.statistics import gather_statistics
from calo_train.training.compose import composed_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from calo_train.training.config import RunConfig

STIRRED = 0.03
NUM_KNOWN = 300  # simulated showers behind the statistics
DTYPES = ("float64", "float32")
RESULTS = Path(__file__).parent / "results" / "families.json"


@dataclass(frozen=True)
class Case:
    """A family on a data set; `samplers` are compared, and `batch` showers drawn at once."""

    name: str
    words: tuple[str, ...]
    samplers: tuple[str, ...]
    batch: int
    energies: Spectrum


WIDE = Spectrum(1e3, 1e6, is_logarithmic=True)
CASES = (
    Case(
        "caloflow, CaloGAN", ("model=caloflow", "dataset=calogan_photons"),
        ("teacher", "student"), 1000, Spectrum(1e3, 1e5),
    ),
    Case(
        "icaloflow, data set 2", ("model=icaloflow", "dataset=calochallenge_ds2"),
        ("teacher", "student"), 1000, WIDE,
    ),
    Case(
        "supercalo, data set 2", ("model=supercalo", "dataset=calochallenge_ds2"), ("",), 200, WIDE
    ),
)  # fmt: skip


def build_generator(case: Case) -> Generator:
    """Build a generator of the published size with seeded weights for all samplers."""
    student = ("model.sampler=student",) if "student" in case.samplers else ()
    config = composed_run(
        [*case.words, *student, "dataset.source=simulated", f"dataset.n_showers={NUM_KNOWN}"]
    )
    family = replace(config.family, tile=case.batch)  # type: ignore[type-var]
    source = open_dataset(config.dataset)
    groups = family.voxel_groups(source.geometry)
    showers = source.read(0, source.num_showers)
    known = gather_statistics([showers], source.geometry, groups)
    torch.manual_seed(0)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for stage in family.stages(source.geometry, known, config.dataset.threshold_energy):
        for index, name in enumerate(stage.given(parts).part_names):
            part = stage.given(parts).build_part(index)
            with torch.no_grad():
                for parameter in part.parameters():
                    parameter.add_(STIRRED * torch.randn_like(parameter))
            parts[f"{stage.name}/{name}"] = dict(part.state_dict())
    return _generator(config, family, source.geometry, known, parts)


def _generator(
    config: RunConfig, family: Any, geometry: Any, known: Any, parts: dict[str, Any]
) -> Generator:
    return Generator(
        family, config.family_target, geometry, known, config.dataset.threshold_energy,
        config.dataset.name, "", config.dataset.layout, ("incident_energy",), parts,
    )  # fmt: skip


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Draw a batch with every sampler in both precisions, in turns."""
    generator = build_generator(case)
    request = SampleRequest(case.batch, {"incident_energy": case.energies})
    incident = request.conditions(0, case.batch)["incident_energy"]
    conditions = {"incident_energy": torch.from_numpy(incident)}
    works = {
        f"{sampler} {dtype}": Work(_drawing(generator, sampler, dtype, conditions, case.batch))
        for dtype in DTYPES
        for sampler in case.samplers
    }
    found = take_turns(works, rounds, seconds=600.0)
    rows = [
        {
            "sampler": sampler or "the only one",
            "dtype": dtype,
            "cpu_ms": 1000 * found[f"{sampler} {dtype}"].cpu / case.batch,
            "wall_ms": 1000 * found[f"{sampler} {dtype}"].wall / case.batch,
            "rounds": found[f"{sampler} {dtype}"].rounds,
        }
        for dtype in DTYPES
        for sampler in case.samplers
    ]
    weights = sum(value.numel() for part in generator.parts.values() for value in part.values())
    return {"case": case.name, "batch": case.batch, "stored_numbers": weights, "rows": rows}


def _drawing(
    generator: Generator, sampler: str, dtype: str, conditions: Any, batch: int
) -> Callable[[], object]:
    """Pack a sampler and give what draws one batch."""
    chosen = generator.drawn_by(sampler) if sampler else generator
    packed = chosen.sampler(dtype=getattr(torch, dtype), device=torch.device("cpu"))
    base = torch.from_numpy(normals(0, 0, batch, packed.num_normals))
    return lambda: packed.draw(base, conditions)


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = []
    for case in CASES:
        if options.only in case.name:
            cases.append(measure(case, options.rounds))
            for row in cases[-1]["rows"]:
                print(
                    f"{case.name:<24} {row['sampler']:<12} {row['dtype']} "
                    f"{row['cpu_ms']:8.3f} ms CPU, {row['wall_ms']:8.3f} ms wall a shower"
                )
    written = {
        "machine": {
            "processor": processor_name(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "nflows", "llvmlite")},
            "threads": 1,
        },
        "peak_bytes": peak_memory(),
        "cases": cases,
    }
    if not options.only:
        RESULTS.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
