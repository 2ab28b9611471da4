"""From `calo-train` overrides to a checked RunConfig, through Hydra's compose.

Hydra's own messages for a wrong key end with a traceback hint and no suggestion; here they become
three-part errors with the nearest names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from calo_train.config_folder import conf_folder, config_groups
from calo_train.errors import UsageError, nearest_names
from calo_train.training.config import RunConfig, check_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from omegaconf import DictConfig

ROOT_CONFIG = "train"


def compose_config(overrides: Sequence[str], *, config_dir: Path | None = None) -> dict[str, Any]:
    """Compose and resolve the config of a training as plain data, or raise UsageError.

    `config_dir` is a folder of the user's own groups, searched first.
    """
    search = [] if config_dir is None else [f"hydra.searchpath=[{_quoted(config_dir)}]"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        try:
            config = compose(ROOT_CONFIG, [*quote_paths(overrides), *search])
            _spare_path(config)
            resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except OverrideParseException as error:
            raise _unreadable(error, overrides) from error
        except MissingConfigException as error:
            raise _missing_choice(error, config_dir) from error
        except (ConfigCompositionException, HydraException) as error:
            raise _refused_override(error, overrides, config_dir) from error
        except OmegaConfBaseException as error:
            raise _unresolved(error) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def composed_run(overrides: Sequence[str], *, config_dir: Path | None = None) -> RunConfig:
    """Compose and check the configuration of a training."""
    return check_config(compose_config(overrides, config_dir=config_dir))


def _spare_path(config: DictConfig) -> None:
    """Ask for no file where showers are simulated."""
    dataset = config.get("dataset")
    if dataset is not None and dataset.get("source") == "simulated":
        dataset.path = None


def _quoted(folder: Path) -> str:
    return f"'file://{folder.expanduser().resolve()}'"


_PLAIN_PATH = re.compile(r"^(dataset\.path|runs_folder|name)=(?!['\"\[])(.*)$", re.DOTALL)


def quote_paths(overrides: Iterable[str]) -> list[str]:
    """Quote values that are paths, so that spaces, commas and = in them need no second quoting."""
    escaped = []
    for override in overrides:
        match = _PLAIN_PATH.match(override)
        if match is None or match.group(2) in ("", "null"):
            escaped.append(override)
        else:
            value = match.group(2).replace("\\", "\\\\").replace("'", "\\'")
            escaped.append(f"{match.group(1)}='{value}'")
    return escaped


def _unreadable(error: Exception, overrides: Sequence[str]) -> UsageError:
    text = str(error).splitlines()[0]
    return UsageError(
        f"an override cannot be read: {text}",
        where=" ".join(overrides),
        do="write key=value without spaces around =; quote values with special characters: "
        "\"key='a, b'\"",
    )


def _missing_choice(error: MissingConfigException, config_dir: Path | None) -> UsageError:
    wanted = (error.missing_cfg_file or "").removesuffix(".yaml")
    group, _, choice = wanted.rpartition("/")
    known = config_groups(config_dir).get(group, {})
    return UsageError(
        f"{group or 'group'} '{choice}' does not exist",
        where=f"{group}={choice}",
        do=f"choose one of {', '.join(sorted(known))}; {nearest_names(choice, known)}",
    )


def _refused_override(
    error: Exception, overrides: Sequence[str], config_dir: Path | None
) -> UsageError:
    text = str(error).splitlines()[0]
    names = re.findall(r"'([^']+)'", text)
    culprit = next((o for o in overrides if any(o.lstrip("+~").startswith(n) for n in names)), "")
    key = culprit.lstrip("+~").partition("=")[0] or (names[0] if names else "")
    return UsageError(
        f"unknown key or group '{key}'",
        where=culprit or text,
        do=f"use a name that exists; {nearest_names(key, _known_keys(key, config_dir))}",
    )


def _known_keys(key: str, config_dir: Path | None) -> list[str]:
    """Give the keys of the default config beside `key`, and the groups."""
    config = OmegaConf.to_container(compose(ROOT_CONFIG, []), resolve=False)
    keys = [*_paths(config), *config_groups(config_dir)]
    prefix = key.rpartition(".")[0]
    beside = [name for name in keys if name.rpartition(".")[0] == prefix]
    return beside or keys


def _paths(value: object, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return []
    found = []
    for key, inner in value.items():
        found += [f"{prefix}{key}", *_paths(inner, f"{prefix}{key}.")]
    return found


def _unresolved(error: OmegaConfBaseException) -> UsageError:
    key = getattr(error, "full_key", None) or "a key"
    return UsageError(
        f"'{key}' has no value yet"
        if "Missing" in type(error).__name__
        else str(error).splitlines()[0],
        where=str(key),
        do=f"set it, for example {key}=VALUE"
        + (" (a file, a list or a glob)" if "path" in str(key) else ""),
    )
