"""The showers that a judged sample was trained on, where they are known.

A run records its files and split; a generator folder the content of its data; a file of showers
nothing, so that --training names them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from calo_train.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.families.generator import Generator
    from calo_train.geometry import Geometry
    from calo_train.showers.source import Crop

_log = logging.getLogger(__name__)


def training_of_run(run: Path) -> ShowerSet | None:
    """Open the rows that a run trained and validated on; None, with a warning, if it cannot."""
    import numpy as np

    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.training.run_folder import held_out_reference

    try:
        source, split = held_out_reference(run)
    except DataError as error:
        _log.warning(
            "%s: its training data cannot be read, so copies of them are not looked for (%s)",
            run.name,
            error.what,
        )
        return None
    rows = np.sort(np.concatenate([split.train, split.validation]))
    return ShowerSet(f"training data of {run.name}", source, rows)


def given_training(
    patterns: Sequence[str], geometry: Geometry, crop: Crop | None
) -> ShowerSet | None:
    """Open the files of --training; None without any."""
    from calo_train.evaluation.shower_set import ShowerSet
    from calo_train.showers.paths import expand_paths
    from calo_train.showers.source import open_paths

    if not patterns:
        return None
    paths = expand_paths(patterns, where="--training")
    return ShowerSet("training data", open_paths(paths, geometry=geometry, crop=crop))


def require_other_data(generator: Generator, folder: Path, reference: ShowerSet) -> None:
    """Raise DataError when a whole reference is what a generator says it was trained on."""
    data = generator.training.get("data", {})
    if reference.rows is None and data.get("fingerprint") == reference.source.fingerprint():
        raise DataError(
            "the reference is the training data itself: their contents are equal",
            where=f"{', '.join(str(path) for path in reference.source.paths)} and {folder}, "
            f"trained on {', '.join(data.get('files', []))}",
            do="give showers that were not trained on",
        )
