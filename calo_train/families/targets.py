"""From a `_target_` in a config or a generator to a family class, and nothing else.

Only classes that resolve into `calo_train.families`, or that an installed package declares under
the entry point group `calo_train.families`, are built: a config must not be able to run code.
The resolved object is checked, so an alias of a foreign object does not pass.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from calo_train.errors import UsageError
from calo_train.families.contracts import Family

_OWN_PREFIX = "calo_train.families."
_ENTRY_POINTS = "calo_train.families"


def resolve_family(target: str, *, where: str) -> type[Family]:
    """Give the family class of a dotted target; refuse everything that is not one."""
    declared = {
        point.value.replace(":", "."): point.value for point in entry_points(group=_ENTRY_POINTS)
    }
    if not (target.startswith(_OWN_PREFIX) or target in declared):
        raise _refused(target, "it is outside calo_train.families", where)
    module_name, _, class_name = target.rpartition(".")
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise _refused(target, f"it does not exist ({error})", where) from error
    is_family = isinstance(found, type) and issubclass(found, Family) and found is not Family
    if not is_family:
        raise _refused(target, "it is not a family", where)
    if target not in declared and not found.__module__.startswith(_OWN_PREFIX):
        raise _refused(target, f"it is an alias of {found.__module__}.{found.__qualname__}", where)
    family: type[Family] = found
    return family


def family_name(family: type[Family] | Family) -> str:
    """Name a family by its package: `l2lflows` for calo_train.families.l2lflows.L2LFlows."""
    kind = family if isinstance(family, type) else type(family)
    parts = kind.__module__.split(".")
    return parts[-2] if len(parts) > 1 else parts[-1]


def _refused(target: str, reason: str, where: str) -> UsageError:
    return UsageError(
        f"'{target}' is not built: {reason}",
        where=where,
        do="give a family of calo_train.families, or install a package that declares an entry "
        f"point in the group {_ENTRY_POINTS}",
    )
