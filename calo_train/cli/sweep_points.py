"""From the words of a sweep to its points: Hydra's syntax, one checked configuration a point."""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import TYPE_CHECKING

from calo_train.errors import UsageError
from calo_train.training.compose import compose_config, quote_paths
from calo_train.training.config import check_config, fingerprint
from calo_train.training.ledger import Point

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hydra.core.override_parser.types import Override

    from calo_train.training.config import RunConfig

_OF_ALL_POINTS = ("runs_folder", "launcher", "dry_run", "restart")
_OF_THE_FOLDER = ("dataset", "model", "name")  # parts of a run's path already
_MAX_NAME = 120  # bytes; file systems take 255, and reports and archives lengthen names


def sweep_points(
    overrides: Sequence[str], config_dir: Path | None
) -> list[tuple[Point, RunConfig]]:
    """Compose and check every point; UsageError when two of them would share a run folder.

    What is swept enters the name of a run. Points of equal configuration are one point.
    """
    found: dict[str, tuple[Point, RunConfig]] = {}
    folders: dict[Path, Point] = {}
    for words, swept in _combinations(overrides):
        resolved = compose_config(words, config_dir=config_dir)
        resolved["name"] = _name_of(str(resolved["name"]), swept)
        config = check_config(resolved)
        key = fingerprint(resolved)
        point = Point(key, tuple(swept), config.folder.absolute(), resolved)
        if key in found:
            continue
        if point.folder in folders:
            raise UsageError(
                f"two points of the sweep would share a folder: {folders[point.folder].title} "
                f"and {point.title}",
                where=str(point.folder),
                do="sweep over name=..., too, or give the two commands different names",
            )
        folders[point.folder] = point
        found[key] = (point, config)
    return list(found.values())


def single_point(config: RunConfig) -> tuple[Point, RunConfig]:
    """Give a single training as a sweep of one point."""
    resolved = dict(config.resolved)
    return Point(fingerprint(resolved), (), config.folder.absolute(), resolved), config


def sweep_name(overrides: Sequence[str]) -> str:
    """Give the name of a sweep: that of its runs before the swept values are added."""
    named = [item for item in _parse(overrides) if item.get_key_element() == "name"]
    if not named:
        return ""
    value = named[-1].get_value_element_as_str()
    return _as_name(value.strip("'\""))


def _combinations(overrides: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Give for every point all its words and those that are swept."""
    choices: dict[str, list[str]] = {}
    swept_keys = []
    for item in _parse(overrides):
        key = item.get_key_element()
        if not item.is_sweep_override():
            choices[key] = [f"{key}={item.get_value_element_as_str()}"]
            continue
        _require_sweepable(key, item)
        swept_keys.append(key)
        choices[key] = [f"{key}={value}" for value in item.sweep_string_iterator()]
    points = (
        dict(zip(choices, words, strict=True)) for words in itertools.product(*choices.values())
    )
    return [(list(point.values()), [point[key] for key in swept_keys]) for point in points]


def _require_sweepable(key: str, item: Override) -> None:
    if not item.is_discrete_sweep():
        raise UsageError(
            f"{key} is swept over an interval, which has no points",
            where=f"{key}={item.get_value_element_as_str()}",
            do="give values, key=1,2,3, or range(1,4)",
        )
    if key.partition(".")[0] in _OF_ALL_POINTS:
        raise UsageError(
            f"{key} cannot differ among the points of a sweep", where=key, do="give one value"
        )


def _parse(overrides: Sequence[str]) -> list[Override]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return list(OverridesParser.create().parse_overrides(quote_paths(overrides)))
    except OverrideParseException as error:
        raise UsageError(
            f"an override cannot be read: {str(error).splitlines()[0]}",
            where=" ".join(overrides),
            do="write key=value without spaces around =",
        ) from error


def _name_of(name: str, swept: Sequence[str]) -> str:
    words = [word for word in swept if word.partition("=")[0] not in _OF_THE_FOLDER]
    whole = "-".join([name, *map(_as_name, words)])
    if len(whole.encode()) <= _MAX_NAME:
        return whole
    return f"{whole[: _MAX_NAME - 13]}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=+-]", "_", text)
