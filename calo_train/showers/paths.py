"""From what `dataset.path` says to existing files: globs, lists, `~`, package data."""

from __future__ import annotations

import glob
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from calo_train.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

_EMBEDDED = "embedded:"


def expand_paths(patterns: Sequence[str], *, where: str) -> list[Path]:
    """Expand `~` and globs, each sorted; no match, or a file given twice, is a DataError."""
    found = [path for pattern in patterns for path in _matches(pattern, where)]
    seen: dict[Path, Path] = {}
    for path in found:
        other = seen.setdefault(path.resolve(), path)
        if other is not path:
            raise DataError(
                f"one file is given twice: {other}"
                + (f" and {path}" if str(path) != str(other) else ""),
                where=where,
                do="give each file once; its showers would be in the training and the test split",
            )
    return found


def embedded_file(name: str) -> Path:
    """Give the path of a file that ships with the package."""
    return Path(__file__).parent / "embedded" / name


def _matches(pattern: str, where: str) -> list[Path]:
    if pattern.startswith(_EMBEDDED):
        return [embedded_file(pattern.removeprefix(_EMBEDDED))]
    path = Path(pattern).expanduser()
    if path.is_dir():
        raise DataError(
            f"{path} is a folder", where=where, do=f"name the files in it, such as '{path}/*.h5'"
        )
    # A file whose own name holds *, ? or [ is taken as it is.
    if path.exists():
        return [path]
    matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - patterns may be absolute
    if not matches:
        raise DataError(f"no such file: {pattern}", where=where, do=_advice(path))
    return matches


def _advice(path: Path) -> str:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    if folder != path.absolute().parent:
        return f"check the folder; {folder} exists, what follows it does not"
    beside = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = get_close_matches(path.name, beside, n=3, cutoff=0.4)
    shown = near or [name for name in beside if name.endswith((".h5", ".hdf5"))][:3]
    return "check the path" + (f"; near: {', '.join(shown)}" if shown else "")
