"""What several commands are given: names of data sets, folders of generators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.errors import DataError, UsageError, nearest_names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from calo_train.showers.dataset import DatasetConfig

RUN_FILE = "config.yaml"


def named_dataset(
    name: str, values: Mapping[str, str] | None = None, *, where: str = "--dataset"
) -> DatasetConfig:
    """Read a data set of `conf/dataset` with some of its values replaced; its path is not used."""
    from calo_train.config_folder import config_groups
    from calo_train.families.settings import build_settings
    from calo_train.showers.dataset import DatasetConfig
    from calo_train.training.compose import compose_config

    known = config_groups()["dataset"]
    if name not in known:
        raise UsageError(
            f"no data set '{name}'",
            where=where,
            do=f"name one; {nearest_names(name, known)}",
        )
    replaced = [f"dataset.{key}='{value}'" for key, value in (values or {}).items()]
    composed = compose_config([f"dataset={name}", "dataset.path=command-line", *replaced])
    return build_settings(DatasetConfig, composed["dataset"], where=f"dataset={name}")


def generator_folder(path: Path) -> Path:
    """Give where the generator of a run folder lies, or a generator folder itself."""
    from calo_train.families.generator import MANIFEST
    from calo_train.training.run_folder import missing_parts

    if (path / MANIFEST).is_file():
        return path
    inside = path / "generator"
    if (inside / MANIFEST).is_file():
        return inside
    if (path / RUN_FILE).is_file():
        missing = missing_parts(path)
        shown = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
        words = (
            f"{len(missing)} parts are missing ({shown})" if missing else "nothing is trained yet"
        )
        raise DataError(
            f"this run is not finished: {words}",
            where=str(path),
            do="run its calo-train command again; it goes on where it stopped",
        )
    raise DataError(
        "no run and no generator here",
        where=str(path),
        do="give the run folder that calo-train printed, a generator folder or a file of showers",
    )
