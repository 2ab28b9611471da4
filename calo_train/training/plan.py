"""What a command trains: stages in order, their parts in groups, cut down by `only=`.

`only=causal` is a stage, `only=causal/7` a part, `only=causal/0-9,12` several. A group is what one
fit trains together; whatever the grouping, each part has its own loss, best epoch and file. What
is stored already is left out.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calo_train.errors import UsageError, nearest_names
from calo_train.training.checkpoints import has_checkpoint
from calo_train.training.run_folder import finished_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calo_train.families.contracts import Stage
    from calo_train.training.run_folder import RunFolder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """Parts of one stage that one fit trains, by index."""

    stage: Stage
    parts: tuple[int, ...]

    @property
    def label(self) -> str:
        """Name the group's folder: `0-9`, or `3` for a single part."""
        names = [self.stage.part_names[index] for index in self.parts]
        return names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}"

    @property
    def selection(self) -> str:
        """What `only=` selects this group by: `causal/0-9`."""
        first, last = self.parts[0], self.parts[-1]
        is_range = self.parts == tuple(range(first, last + 1))
        names = [self.stage.part_names[index] for index in self.parts]
        return f"{self.stage.name}/{self.label if is_range else ','.join(names)}"

    @property
    def keys(self) -> tuple[str, ...]:
        """`stage/part` of each part."""
        return tuple(f"{self.stage.name}/{self.stage.part_names[index]}" for index in self.parts)


def plan_groups(
    stages: Sequence[Stage], *, only: str | None, sizes: Mapping[str, int]
) -> list[Group]:
    """Cut the wanted parts of all stages into groups of `sizes` parts by stage, in order."""
    wanted = _wanted_parts(stages, only)
    groups = []
    for stage in stages:
        if stage.name not in wanted:
            continue
        parts, size = wanted[stage.name], sizes[stage.name]
        groups += [
            Group(stage, parts[start : start + size]) for start in range(0, len(parts), size)
        ]
    return groups


def unfinished(run: RunFolder, groups: Sequence[Group]) -> list[Group]:
    """Leave out parts that are stored already; a group with some left keeps only those.

    One that has a checkpoint stays whole: it was killed while it stored its parts, and goes on.
    """
    left = []
    for group in groups:
        done = finished_parts(run, group.keys)
        parts = tuple(
            index for index, key in zip(group.parts, group.keys, strict=True) if key not in done
        )
        if done:
            _log.info("already trained: %s", ", ".join(done))
        if parts and has_checkpoint(run.group_folder(group.stage.name, group.label)):
            left.append(group)
        elif parts:
            left.append(Group(group.stage, parts))
    return left


def keys_of(groups: Sequence[Group]) -> set[str]:
    """Give `stage/part` of all parts of some groups."""
    return {key for group in groups for key in group.keys}


def _wanted_parts(stages: Sequence[Stage], only: str | None) -> dict[str, tuple[int, ...]]:
    if only is None:
        return {stage.name: tuple(range(len(stage.part_names))) for stage in stages}
    name, _, selection = only.partition("/")
    stage = next((stage for stage in stages if stage.name == name), None)
    if stage is None:
        known = [stage.name for stage in stages]
        raise UsageError(
            f"no stage '{name}'",
            where=f"only={only}",
            do=f"use one of {', '.join(known)}; {nearest_names(name, known)}",
        )
    if not selection:
        return {name: tuple(range(len(stage.part_names)))}
    chosen = {index for piece in selection.split(",") for index in _piece(stage, piece, only)}
    return {name: tuple(sorted(chosen))}


def _piece(stage: Stage, piece: str, only: str) -> range:
    first, _, last = piece.partition("-")
    ends = []
    for name in (first, last or first):
        if name not in stage.part_names:
            raise UsageError(
                f"stage {stage.name} has no part '{name}'",
                where=f"only={only}",
                do=f"its parts are {stage.part_names[0]} to {stage.part_names[-1]}, "
                f"such as only={stage.name}/{stage.part_names[0]}-{stage.part_names[-1]}",
            )
        ends.append(stage.part_names.index(name))
    return range(ends[0], ends[1] + 1)
