"""From yaml data to a checked object: typed dataclasses, unknown keys named with their nearest.

OmegaConf's structured configs do the type checking; this module turns their errors into the
three-part form. Used for families, data sets and every other group, and for generators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from calo_train.errors import UsageError, nearest_names
from calo_train.families.targets import resolve_family

if TYPE_CHECKING:
    from calo_train.families.contracts import Family

Settings = TypeVar("Settings")


def build_settings(kind: type[Settings], mapping: Mapping[str, Any], *, where: str) -> Settings:
    """Build the dataclass `kind` from plain data; unknown keys and ill-typed values are refused.

    `where` names the config group or file; the message adds the key inside it.
    """
    require_known_keys(kind, mapping, where=where)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(kind), OmegaConf.create(dict(mapping)))
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except MissingMandatoryValue as error:
        raise UsageError(
            f"a value is missing: {_first_line(error)}",
            where=f"{where}.{error.full_key or ''}".rstrip("."),
            do=f"set it, for example {where}.{error.full_key or 'key'}=VALUE",
        ) from error
    except (ConfigKeyError, OmegaConfBaseException) as error:
        raise UsageError(
            _first_line(error),
            where=f"{where}.{getattr(error, 'full_key', None) or ''}".rstrip("."),
            do="give a value of the type that the key's file under conf/ shows",
        ) from error


def build_family(mapping: Mapping[str, Any], *, where: str) -> Family:
    """Build the family that `_target_` names, with the other keys as its hyperparameters."""
    values = dict(mapping)
    target = values.pop("_target_", None)
    if not isinstance(target, str):
        raise UsageError(
            "no family is named", where=f"{where}._target_", do="choose one with model=NAME"
        )
    refuse_targets(values, where=where)
    return build_settings(resolve_family(target, where=f"{where}._target_"), values, where=where)


def require_known_keys(kind: type[Any], mapping: Mapping[str, Any], *, where: str) -> None:
    """Raise UsageError for the first key, at any depth, that the dataclass does not have."""
    hints = get_type_hints(kind)
    known = {item.name for item in fields(kind)}
    for key, value in mapping.items():
        if key not in known:
            raise UsageError(
                f"unknown key '{where}.{key}'",
                where=f"{where} holds {kind.__name__}",
                do=f"use a key that exists; {nearest_names(str(key), known)}",
            )
        for inner in (hints[key], *get_args(hints[key])):
            if isinstance(value, Mapping) and isinstance(inner, type) and is_dataclass(inner):
                require_known_keys(inner, value, where=f"{where}.{key}")


def refuse_targets(value: Any, *, where: str) -> None:
    """Raise UsageError for `_target_` and Hydra's other construction keys below the top."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and key.startswith("_") and key.endswith("_"):
                raise UsageError(
                    f"'{key}' is not allowed here",
                    where=f"{where}.{key}",
                    do="only a model's own _target_ is built",
                )
            refuse_targets(inner, where=f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            refuse_targets(inner, where=f"{where}[{index}]")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
