"""Join the shards of one request to the file that it would have been in one piece."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from calo_train.atomic_files import replacing, require_writable
from calo_train.errors import DataError, UsageError
from calo_train.geometry import geometry_from_mapping
from calo_train.showers.layouts import ShowerFile, create_showers, open_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BLOCK_ROWS = 1024


def merge_shards(paths: Sequence[Path], out: Path, *, force: bool = False) -> int:
    """Write the showers of all shards to `out` in order and give their number.

    DataError when a shard is missing, doubled, or of another request or generator.
    """
    if out.exists() and not force:
        raise UsageError(
            "the output exists already",
            where=str(out),
            do="give another name, or --force, which replaces it",
        )
    require_writable(out.parent)
    files = [open_file(path) for path in paths]
    try:
        ordered = _ordered(files)
        return _write(ordered, out)
    finally:
        for file in files:
            file.close()


def _write(files: list[ShowerFile], out: Path) -> int:
    attributes = {k: v for k, v in files[0].attributes.items() if not k.startswith("repaired_")}
    geometry = geometry_from_mapping(
        json.loads(attributes["sampled_geometry"]), where=f"{files[0].path}: sampled_geometry"
    )
    # An empty shard repaired nothing and names nothing, so every shard is asked.
    repairs = {name for file in files for name in file.attributes if name.startswith("repaired_")}
    for name in repairs:
        attributes[name] = sum(int(file.attributes.get(name, 0)) for file in files)
    attributes["shard"] = "0/1"
    with (
        replacing(out) as temporary,
        create_showers(
            temporary,
            files[0].layout,
            geometry,
            attributes=attributes,
            condition_names=files[0].condition_names,
        ) as writer,
    ):
        for file in files:
            for start in range(0, file.num_showers, _BLOCK_ROWS):
                stop = min(start + _BLOCK_ROWS, file.num_showers)
                writer.append(file.read(start, stop, geometry))
        return writer.num_showers


def _ordered(files: list[ShowerFile]) -> list[ShowerFile]:
    found: dict[int, ShowerFile] = {}
    _, count = _shard_of(files[0])
    for file in files:
        index, own_count = _shard_of(file)
        if own_count != count:
            raise DataError(
                f"shards of {count} and of {own_count} pieces",
                where=f"{files[0].path} and {file.path}",
                do="give the shards of one request",
            )
        if index in found:
            raise DataError(
                f"shard {index}/{count} is given twice",
                where=f"{found[index].path} and {file.path}",
                do="give each shard once",
            )
        found[index] = file
        _require_same(files[0], file)
    missing = [str(index) for index in range(count) if index not in found]
    if missing:
        raise DataError(
            f"of {count} shards {', '.join(missing)} are missing",
            where=str(files[0].path.parent),
            do=f"draw them with --shard i/{count}",
        )
    return [found[index] for index in range(count)]


def _shard_of(file: ShowerFile) -> tuple[int, int]:
    text = str(file.attributes.get("shard", ""))
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit()):
        raise DataError(
            "not a shard: the attribute `shard` is missing",
            where=str(file.path),
            do="give files that calo-sample --shard wrote",
        )
    return int(index), int(count)


def _require_same(first: ShowerFile, other: ShowerFile) -> None:
    for name in ("request", "generator_fingerprint", "dtype", "device"):
        mine, theirs = first.attributes.get(name), other.attributes.get(name)
        if mine != theirs:
            raise DataError(
                f"shards of different requests: {name} is {mine} and {theirs}",
                where=f"{first.path} and {other.path}",
                do="give the shards of one request",
            )
