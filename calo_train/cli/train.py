"""calo-train: compose a configuration, train it, say where the generator lies.

Arguments are Hydra overrides. `--help` reads only the config folder's comment lines; torch is
imported after the configuration has been checked.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from calo_train import __version__
from calo_train.cli.errors import log_to_stderr, run_command
from calo_train.config_folder import conf_folder, config_groups
from calo_train.errors import UsageError, nearest_names

if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """\
calo-train [KEY=VALUE ...]    train a generator of calorimeter showers

  calo-train                                              the quickstart on the embedded sample
  calo-train model=l2lflows dataset=ild_photons dataset.path=photons.h5
  calo-train experiment=l2lflows_paper dataset.path='photons*.h5' trainer=gpu
  calo-train -m model=l2lflows seed=0,1,2                 one training for each value
  calo-train -m launcher=slurm model=l2lflows seed=0,1,2  the same as jobs of a cluster

The same command resumes an interrupted training.

Keys
  name=NAME            last part of the run folder runs/DATASET/MODEL/NAME
  seed=0               of everything
  only=STAGE/PARTS     train a part of the model, such as energy or causal/0-9
  restart=true         move an existing run aside and start anew
  dry_run=true         build all, fit two batches, estimate time, memory and disk
  GROUP.KEY=VALUE      any key of the groups below; --cfg job shows them all

Options
  --config-dir DIR     a folder with config groups of your own
  -m, --multirun       sweep over comma-separated values
  --cfg job            print the composed configuration
  --info               list the groups and their choices
  --json               print the result as JSON
  --quiet              only errors and the result
  --debug              show the traceback of an error
  --version, --help
  -sc install=bash     shell completion (Hydra's): eval "$(calo-train -sc install=bash)"
"""
_SWEEP_FLAGS = ("-m", "--multirun")
_HYDRA_FLAGS = (*_SWEEP_FLAGS, "--cfg", "-c", "--shell-completion", "-sc", "--resolve", "-p",
                "--package", "--hydra-help")  # fmt: skip
_OWN_FLAGS = (
    "--help",
    "-h",
    "--info",
    "--version",
    "--json",
    "--quiet",
    "--debug",
    "--config-dir",
)


@dataclass(frozen=True)
class Arguments:
    """The command line, sorted: overrides, Hydra's flags and ours."""

    overrides: list[str]
    hydra_flags: list[str]
    config_dir: Path | None
    is_json: bool
    is_quiet: bool
    is_debug: bool


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--version" in words:
        print(__version__)
        raise SystemExit(0)
    if "--help" in words or "-h" in words or "--info" in words:
        code = run_command(lambda: _print_help(words), is_debug="--debug" in words)
    else:
        code = run_command(lambda: _main(words), is_debug="--debug" in words)
    raise SystemExit(code)


def _main(words: list[str]) -> None:
    arguments = _parse(words)
    if set(arguments.hydra_flags) - set(_SWEEP_FLAGS):
        from calo_train.cli.sweep import hand_to_hydra

        hand_to_hydra(arguments)
        return
    with log_to_stderr(is_quiet=arguments.is_quiet, is_debug=arguments.is_debug):
        if arguments.hydra_flags:
            from calo_train.cli.sweep import sweep

            sweep(arguments)
        else:
            _train(arguments)


def _train(arguments: Arguments) -> None:
    from calo_train.training.compose import composed_run

    overrides = arguments.overrides or ["experiment=quickstart"]
    config = composed_run(overrides, config_dir=arguments.config_dir)
    if config.launcher.is_cluster:
        from calo_train.cli.sweep import submit_training

        submit_training(config, arguments)
        return
    if config.dry_run:
        from calo_train.training.estimate import estimate

        print(estimate(config).as_text())
        return
    from calo_train.training.run import train

    result = train(config)
    if arguments.is_json:
        print(json.dumps(result.as_mapping()))
        return
    print(result.as_text())
    if not arguments.is_quiet and not result.missing:
        run = quote(str(result.run.path))
        print(f"next: calo-sample {run} -n 1000\n      calo-eval {run}")


def _parse(words: list[str]) -> Arguments:
    overrides: list[str] = []
    hydra_flags: list[str] = []
    config_dir: Path | None = None
    remaining = iter(words)
    for word in remaining:
        flag, has_value, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            config_dir = _existing_folder(value if has_value else next(remaining, ""))
        elif flag in _HYDRA_FLAGS:
            hydra_flags.append(word)
            if flag in ("--cfg", "-c", "-p", "--package") and not has_value:
                hydra_flags.append(next(remaining, ""))
        elif word in _OWN_FLAGS:
            continue
        elif word.startswith("-"):
            raise UsageError(
                f"unknown option '{word}'",
                where="calo-train",
                do=f"see calo-train --help; {nearest_names(word, (*_OWN_FLAGS, *_HYDRA_FLAGS))}",
            )
        elif not has_value and not word.startswith("~"):
            raise UsageError(
                f"'{word}' is not KEY=VALUE",
                where="calo-train",
                do=f"write key=value; {nearest_names(word, config_groups(config_dir))}",
            )
        else:
            overrides.append(word)
    return Arguments(
        overrides,
        hydra_flags,
        config_dir,
        is_json="--json" in words,
        is_quiet="--quiet" in words,
        is_debug="--debug" in words,
    )


def _existing_folder(text: str) -> Path:
    folder = Path(text).expanduser()
    if not text or not folder.is_dir():
        raise UsageError(
            f"no folder '{text}'",
            where="--config-dir",
            do="give a folder that holds config groups",
        )
    return folder.resolve()


def _print_help(words: list[str]) -> None:
    config_dir = next(
        (Path(after) for word, after in itertools.pairwise(words) if word == "--config-dir"),
        None,
    )
    if "--info" not in words:
        print(USAGE)
    print(f"Groups (files in {conf_folder()})")
    for group, choices in config_groups(config_dir).items():
        if group == "geometry":
            continue  # chosen by the data set
        print(f"  {group}=")
        for choice, line in choices.items():
            print(f"    {choice:<20} {line}")


if __name__ == "__main__":
    main()
