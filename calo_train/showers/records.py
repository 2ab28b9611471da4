"""Published data: from the DOI of a record to its files, their sizes and checksums.

Zenodo (10.5281/zenodo.N) and Mendeley Data (10.17632/NAME.VERSION), through their public record
interfaces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from calo_train.errors import DataError, UsageError
from calo_train.showers.web import Unreachable, get_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_DIGESTS = {"md5": 32, "sha256": 64}  # hexadecimal digits


@dataclass(frozen=True)
class PublishedFile:
    """A file of a record; `checksum` is hexadecimal, by `algorithm` (md5 or sha256)."""

    name: str
    size: int  # bytes
    url: str
    algorithm: str
    checksum: str


@dataclass(frozen=True)
class Record:
    """Where a DOI's file list is: an archive, the address of the list, how an entry reads."""

    home: str
    address: str
    files_of: Callable[[Any], list[PublishedFile]]


def record_of(doi: str) -> Record:
    """Give the record of a DOI; one of an archive that is not known is a UsageError."""
    zenodo = re.fullmatch(r"10\.5281/zenodo\.(\d+)", doi)
    if zenodo is not None:
        home = "https://zenodo.org"
        return Record(home, f"{home}/api/records/{zenodo.group(1)}", _zenodo_files)
    mendeley = re.fullmatch(r"10\.17632/([a-z0-9]+)\.(\d+)", doi)
    if mendeley is not None:
        home = "https://data.mendeley.com"
        name, version = mendeley.groups()
        address = f"{home}/public-api/datasets/{name}/files?folder_id=root&version={version}"
        return Record(home, address, _mendeley_files)
    raise UsageError(
        f"'{doi}' is of no archive that is known here",
        where="dataset.doi",
        do="give one of Zenodo (10.5281/zenodo.N) or Mendeley Data (10.17632/NAME.VERSION)",
    )


def published_files(
    doi: str, pattern: str, *, folder: Path, mirror: str | None = None
) -> list[PublishedFile]:
    """List the files of a record whose names match a glob, in order of their names.

    `mirror` stands in for the archive's own address. Without a network the error says what to put
    into `folder` instead.
    """
    record = record_of(doi)

    def at_mirror(url: str) -> str:
        is_home = mirror is not None and url.startswith(f"{record.home}/")
        return f"{mirror}{url.removeprefix(record.home)}" if is_home else url

    address = at_mirror(record.address)
    try:
        found = record.files_of(get_json(address))
    except Unreachable as error:
        raise Unreachable(
            error.what,
            where=f"{address}, for {folder}",
            do=f"download {pattern} of https://doi.org/{doi} on another machine into {folder}",
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"the record cannot be read: {type(error).__name__} {error}",
            where=address,
            do=f"download the files from https://doi.org/{doi}",
        ) from error
    chosen = [file for file in found if fnmatchcase(file.name, pattern)]
    if not chosen:
        raise DataError(
            f"no file of the record is called '{pattern}'",
            where=address,
            do=f"it holds {', '.join(file.name for file in found) or 'nothing'}",
        )
    return [
        PublishedFile(file.name, file.size, at_mirror(file.url), file.algorithm, file.checksum)
        for file in sorted(chosen, key=lambda file: file.name)
    ]


def _zenodo_files(record: Mapping[str, Any]) -> list[PublishedFile]:
    return [
        _file(
            entry["key"], entry["size"], entry["links"]["self"], *entry["checksum"].split(":", 1)
        )
        for entry in record["files"]
    ]


def _mendeley_files(entries: list[Mapping[str, Any]]) -> list[PublishedFile]:
    contents = [(entry["filename"], entry["content_details"]) for entry in entries]
    return [
        _file(name, content["size"], content["download_url"], "sha256", content["sha256_hash"])
        for name, content in contents
    ]


def _file(name: str, size: int, url: str, algorithm: str, checksum: str) -> PublishedFile:
    """Check what a record says of a file: it decides where we write."""
    if PurePosixPath(name).name != name or name.startswith(".") or "\\" in name or "\0" in name:
        raise ValueError(f"file name '{name}'")
    if not re.fullmatch(r"[0-9a-f]*", checksum) or len(checksum) != _DIGESTS[algorithm]:
        raise ValueError(f"checksum {algorithm}:{checksum}")
    return PublishedFile(str(name), int(size), str(url), algorithm, checksum)
