"""A generator: the trained parts with all that drawing showers needs, as a folder.

`generator.yaml` and one safetensors file a part. It is read without config groups, Hydra, training
data, network or pickle, and refused when anything is missing, altered or newer than the program.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from calo_train import __version__
from calo_train.atomic_files import replacing, sha256_of, sync_folder, write_text
from calo_train.errors import DataError
from calo_train.families.settings import build_family
from calo_train.geometry import Geometry, geometry_from_mapping
from calo_train.geometry.sources import geometry_to_mapping
from calo_train.showers.statistics import ShowerStatistics
from calo_train.yaml_text import YamlError, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

    from calo_train.families.contracts import Family, Refiner, Sampler

FORMAT = "calo-train generator"
FORMAT_VERSION = 1
MANIFEST = "generator.yaml"


@dataclass(frozen=True, eq=False)
class Generator:
    """Trained parts, `stage/part` -> state dict, and what they were trained on; MeV."""

    family: Family
    family_target: str
    geometry: Geometry
    statistics: ShowerStatistics
    threshold: float
    dataset_name: str
    dataset_description: str
    layout: str
    condition_names: tuple[str, ...]
    parts: Mapping[str, Mapping[str, Tensor]]
    training: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    papers: tuple[str, ...] = ()  # of the data set
    fingerprint: str = ""

    def drawn_by(self, sampler: str) -> Generator:
        """Give this generator with another sampler of its family."""
        return replace(self, family=self.family.drawn_by(sampler))

    def sampler(self, *, dtype: torch.dtype, device: torch.device) -> Sampler:
        """Build the family's sampler with these parts."""
        return self.family.build_sampler(
            self.geometry,
            self.statistics,
            self.threshold,
            self.parts,
            dtype=dtype,
            device=device,
        )

    def refiner(self, *, dtype: torch.dtype, device: torch.device) -> Refiner:
        """Build the family's refiner of given coarse showers with these parts."""
        return self.family.build_refiner(
            self.geometry,
            self.statistics,
            self.threshold,
            self.parts,
            dtype=dtype,
            device=device,
        )


def save_generator(folder: Path, generator: Generator) -> Generator:
    """Write a generator into `folder`, the manifest last, and give it with its fingerprint."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for key, weights in generator.parts.items():
        path = folder / _part_file(key)
        with replacing(path) as temporary:
            save_file({name: value.contiguous() for name, value in weights.items()}, temporary)
        entries[key] = {"file": path.name, "sha256": sha256_of(path)}
    manifest = _manifest(generator, entries)
    write_text(folder / MANIFEST, yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True))
    sync_folder(folder)
    return replace(generator, fingerprint=_fingerprint(folder / MANIFEST))


def load_generator(folder: Path) -> Generator:
    """Read a generator; DataError says what is missing, altered, damaged or too new."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            "no generator here",
            where=str(path),
            do="give a run folder whose training has finished, or a generator folder",
        )
    manifest = _read_manifest(path)
    try:
        generator = _from_manifest(manifest, folder)
    except (LookupError, TypeError, ArithmeticError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__} {error}") from error
    return replace(generator, fingerprint=_fingerprint(path))


def _manifest(generator: Generator, entries: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "written_by": f"calo-train {__version__}",
        "family": {"_target_": generator.family_target, **asdict(generator.family)},  # type: ignore[call-overload]
        "dataset": {
            "name": generator.dataset_name,
            "description": generator.dataset_description,
            "layout": generator.layout,
            "threshold_mev": generator.threshold,
            "conditions": list(generator.condition_names),
            "papers": list(generator.papers),
        },
        "statistics": generator.statistics.to_mapping(),
        "training": dict(generator.training),
        "notes": list(generator.notes),
        "geometry": geometry_to_mapping(generator.geometry),
        "parts": dict(entries),
    }


def _from_manifest(manifest: Mapping[str, Any], folder: Path) -> Generator:
    where = str(folder / MANIFEST)
    dataset = manifest["dataset"]
    target = str(manifest["family"]["_target_"])
    return Generator(
        family=build_family(manifest["family"], where=where),
        family_target=target,
        geometry=geometry_from_mapping(manifest["geometry"], where=where),
        statistics=ShowerStatistics.from_mapping(manifest["statistics"], where=where),
        threshold=float(dataset["threshold_mev"]),
        dataset_name=str(dataset["name"]),
        dataset_description=str(dataset["description"]),
        layout=str(dataset["layout"]),
        condition_names=tuple(str(name) for name in dataset["conditions"]),
        parts={key: _load_part(folder, key, entry) for key, entry in manifest["parts"].items()},
        training=dict(manifest["training"]),
        notes=tuple(str(note) for note in manifest["notes"]),
        papers=tuple(str(name) for name in dataset.get("papers", [])),
    )


def _load_part(folder: Path, key: str, entry: Mapping[str, Any]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    name = str(entry["file"])
    path = folder / name
    if name != _part_file(key) or path.is_symlink():
        raise DataError(
            f"part '{key}' points to the file '{name}'",
            where=str(folder / MANIFEST),
            do="fetch an intact copy; parts lie beside the manifest under their own names",
        )
    if not path.is_file():
        raise DataError(
            f"part '{key}' is missing", where=str(path), do="fetch an intact copy of the folder"
        )
    if sha256_of(path) != entry["sha256"]:
        raise DataError(
            f"part '{key}' was altered: its checksum differs from the manifest's",
            where=str(path),
            do="fetch an intact copy of the folder",
        )
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error


def _read_manifest(path: Path) -> Mapping[str, Any]:
    try:
        manifest = read_yaml(path)
    except YamlError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _damaged(path, "it does not say that it is a generator")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DataError(
            f"format version {version} is newer than this program reads ({FORMAT_VERSION})",
            where=f"{path}, written by {manifest.get('written_by', 'an unknown program')}",
            do="install a newer calo-train",
        )
    return manifest


def _part_file(key: str) -> str:
    stage, _, part = key.partition("/")
    if not (stage.isidentifier() and part.replace("_", "").isalnum()):
        raise ValueError(f"'{key}' is not stage/part")
    return f"{stage}-{part}.safetensors"


def _fingerprint(manifest: Path) -> str:
    """Hash the manifest, which holds the checksum of every part."""
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"damaged generator: {reason}", where=str(path), do="fetch an intact copy of the folder"
    )
