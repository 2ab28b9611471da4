"""Published files of a data set, as `calo-data fetch` lists and fetches them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.showers.records import PublishedFile


def published(
    name: str, folder: Path, only: str | None, mirror: str | None
) -> list[PublishedFile]:
    """List the published files of a data set, all or those that match `only`."""
    from calo_train.cli.inputs import named_dataset
    from calo_train.showers.records import published_files

    config = named_dataset(name, where="NAME")
    if config.doi is None:
        raise UsageError(
            f"{name} has no published files",
            where=f"dataset.doi of {name}: {config.description}",
            do="give your own files with dataset.path",
        )
    address = None if mirror is None else mirror.rstrip("/")
    files = published_files(
        config.doi, config.published_files, folder=folder.absolute(), mirror=address
    )
    chosen = [file for file in files if fnmatchcase(file.name, only or "*")]
    if not chosen:
        raise UsageError(
            f"no file matches '{only}'",
            where="--only",
            do=f"choose from {', '.join(file.name for file in files)}",
        )
    return chosen


def listed(files: list[dict[str, Any]]) -> str:
    """Describe published files, one a line, and their total."""
    from calo_train.quantities import format_size

    lines = [
        f"{file['name']}  {format_size(file['size'])}  {file['algorithm']} {file['checksum']}"
        for file in files
    ]
    total = sum(file["size"] for file in files)
    return "\n".join([*lines, f"{len(files)} files, {format_size(total)}"])
