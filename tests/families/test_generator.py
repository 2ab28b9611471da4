"""A generator folder: what it keeps, and what is refused when it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import yaml

from calo_train.errors import DataError, UsageError
from calo_train.families.generator import load_generator
from calo_train.families.targets import resolve_family

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(finished_run: Path) -> Path:
    return finished_run / "generator"


def _change(folder: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    path = folder / "generator.yaml"
    manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")


def test_generator_alone_draws(folder: Path) -> None:
    """S12: no config, run folder or data is needed."""
    generator = load_generator(folder)
    sampler = generator.sampler(dtype=torch.float64, device=torch.device("cpu"))
    random = torch.Generator().manual_seed(1)
    normals = torch.randn(sampler.tile, sampler.num_normals, generator=random, dtype=torch.float64)
    energies = torch.full((sampler.tile,), 50_000.0, dtype=torch.float64)
    drawn = sampler.draw(normals, {"incident_energy": energies}).energies
    assert drawn.shape == (sampler.tile, generator.geometry.num_voxels)
    assert ((drawn == 0) | (drawn >= generator.threshold * (1 - 1e-12))).all()


def test_altered_part_is_refused(folder: Path) -> None:
    part = folder / "causal-1.safetensors"
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    with pytest.raises(DataError, match="altered"):
        load_generator(folder)


def test_missing_part_is_named(folder: Path) -> None:
    (folder / "energy-0.safetensors").unlink()
    with pytest.raises(DataError, match="energy/0"):
        load_generator(folder)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda m: m.update(format_version=99), DataError, "newer"),
        (lambda m: m.update(format="else"), DataError, "does not say"),
        (lambda m: m.pop("statistics"), DataError, "statistics"),
        (lambda m: m["parts"]["energy/0"].update(file="../x"), DataError, "points to"),
        (lambda m: m["family"].update(_target_="os.system"), UsageError, "outside"),
    ],
)
def test_foreign_manifest_is_refused(
    folder: Path,
    change: Callable[[dict], None],
    error: type[Exception],
    words: str,  # type: ignore[type-arg]
) -> None:
    """X1: a generator is data; its text can not run code or point outside its folder."""
    _change(folder, change)
    with pytest.raises(error, match=words):
        load_generator(folder)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "calo_train.families.generator.yaml.load",
        "calo_train.families.contracts.Family",
        "calo_train.families.l2lflows.family.UsageError",
        "calo_train.cli.train.main",
    ],
)
def test_only_families_are_built(target: str) -> None:
    """X2: aliases of foreign objects inside our modules do not pass either."""
    with pytest.raises(UsageError):
        resolve_family(target, where="model._target_")
