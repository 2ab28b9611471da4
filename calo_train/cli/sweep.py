"""What Hydra does better than we: sweeps (`-m`), `--cfg`, shell completion."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from calo_train.cli.errors import log_to_stderr, run_command
from calo_train.config_folder import conf_folder
from calo_train.errors import CaloTrainError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from calo_train.cli.train import Arguments


class SweepFailed(CaloTrainError):
    """Some points of a sweep failed; carries the worst exit code."""

    def __init__(self, failures: dict[str, int], total: int) -> None:
        listed = "; ".join(f"{name}: exit {code}" for name, code in failures.items())
        super().__init__(
            f"{len(failures)} of {total} trainings of the sweep did not finish",
            where=listed,
            do="mend the cause; the same command resumes those and skips what is finished",
        )
        self.exit_code = max(failures.values())  # type: ignore[misc]


def hand_to_hydra(arguments: Arguments) -> None:
    """Let Hydra run the command line; every point of a sweep is one training of its own."""
    import hydra

    from calo_train.training.compose import quote_paths

    exits: dict[str, int] = {}

    def point(config: DictConfig) -> None:
        name, code = _run_point(config, arguments)
        exits[name] = code

    program = sys.argv[0]
    own_groups = (
        [] if arguments.config_dir is None else ["--config-dir", str(arguments.config_dir)]
    )
    saved = sys.argv
    overrides = quote_paths(arguments.overrides)
    sys.argv = [program, *arguments.hydra_flags, *own_groups, *overrides]
    try:
        with log_to_stderr(is_quiet=arguments.is_quiet, is_debug=arguments.is_debug):
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="train")(
                point
            )()
    finally:
        sys.argv = saved
    failures = {name: code for name, code in exits.items() if code != 0}
    if failures:
        raise SweepFailed(failures, len(exits))


def _run_point(config: DictConfig, arguments: Arguments) -> tuple[str, int]:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from calo_train.training.config import check_config
    from calo_train.training.run import train

    resolved = OmegaConf.to_container(config, resolve=True)
    assert isinstance(resolved, dict)
    overrides = list(HydraConfig.get().overrides.task)
    keys = _swept_keys(arguments.overrides)
    swept = [item for item in overrides if item.partition("=")[0] in keys]
    # Two points must not share a folder: what is swept enters the name.
    suffix = [item for item in swept if item.partition("=")[0] not in ("dataset", "model", "name")]
    if suffix:
        resolved["name"] = "-".join([str(resolved["name"]), *map(_as_name, suffix)])

    def command() -> None:
        checked = check_config({str(key): value for key, value in resolved.items()})
        if checked.dry_run:
            from calo_train.training.estimate import estimate

            print(estimate(checked).as_text())
        else:
            print(train(checked).as_text())

    return " ".join(swept), run_command(command, is_debug=arguments.is_debug)


def _swept_keys(overrides: list[str]) -> set[str]:
    """Give the keys that take several values on the command line."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from calo_train.training.compose import quote_paths

    parsed = OverridesParser.create().parse_overrides(quote_paths(overrides))
    return {item.get_key_element() for item in parsed if item.is_sweep_override()}


def _as_name(override: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=+-]", "_", override)
