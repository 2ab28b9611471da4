"""What calo-data says of files of showers."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from calo_train.quantities import format_energy, format_size

if TYPE_CHECKING:
    from calo_train.showers.inspect import CheckResult, FileDescription


def described(found: FileDescription) -> str:
    """Say what is in a file, one line a property."""
    lines = [
        found.file,
        f"  layout      {found.layout}",
        f"  showers     {found.num_showers}",
        f"  each        {found.shower}",
    ]
    for name, column in found.conditions.items():
        lines.append(f"  condition   {name}: {_range(column)}")
    stored = f"{found.storage}, in {found.voxel_unit}"
    if found.mantissa_bits:
        stored += f", rounded to {found.mantissa_bits} bits of mantissa"
    lines += [
        f"  energies    {stored}",
        f"  size        {format_size(found.num_bytes)}",
        f"  fits        {', '.join(found.datasets) or 'no data set of conf/dataset'}",
    ]
    lines += [f"  {name:<11} {value}" for name, value in sorted(found.attributes.items())]
    return "\n".join(lines)


def _range(column: dict[str, Any]) -> str:
    if column["low"] is None:
        return "no values"
    if column["unit"] == "MeV":
        text = f"{format_energy(column['low'])} to {format_energy(column['high'])}"
    else:
        text = f"{column['low']:.4g} to {column['high']:.4g} {column['unit']}".rstrip()
    return text if column["stored_unit"] == "" else f"{text} (stored in {column['stored_unit']})"


def checked(result: CheckResult, dataset: str | None) -> str:
    """Say that a file is good, and what may come next."""
    low, high = result.incident_energy
    fits = f"fits {dataset}" if dataset else f"fits {', '.join(result.datasets) or 'no data set'}"
    lines = [
        f"{result.file}: good, {result.num_showers} showers",
        f"  detector    {result.detector}; {fits}",
        f"  energies    {format_energy(low)} to {format_energy(high)}, "
        f"visible fraction {result.visible_fraction:.4g}, {result.num_empty} without energy",
        f"  reading     {result.rate:.3g} showers/s ({result.storage})",
    ]
    if not dataset and result.datasets:
        lines.append(
            f"  next        calo-data check {quote(result.file)} --dataset NAME: its units"
        )
    if result.is_slow:
        target = str(Path(result.file).with_name(f"{Path(result.file).stem}_repacked.h5"))
        lines.append(
            f"  slow        written anew it reads {result.repacked_rate:.3g} showers/s: "
            f"calo-data convert {quote(result.file)}{detector_flag(dataset, None)} "
            f"-o {quote(target)}"
        )
    return "\n".join(lines)


def detector_flag(dataset: str | None, geometry: str | None) -> str:
    """Give the option that names the detector of a command to paste."""
    if dataset is not None:
        return f" --dataset {quote(dataset)}"
    return "" if geometry is None else f" --geometry {quote(geometry)}"
