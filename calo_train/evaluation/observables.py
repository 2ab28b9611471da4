"""All observables by name: of whole showers, then of single layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calo_train.evaluation import layer_observables, shower_observables
from calo_train.evaluation.observable import REGISTERED, Observable, Scale

if TYPE_CHECKING:
    from calo_train.evaluation.deposits import Grid

__all__ = ["OBSERVABLES", "Observable", "Scale", "observables_of"]

_MODULES = (shower_observables, layer_observables)
OBSERVABLES: dict[str, Observable] = {
    name: entry
    for module in _MODULES
    for name, entry in REGISTERED.items()
    if entry.measure.__module__ == module.__name__
}


def observables_of(grid: Grid) -> dict[str, Observable]:
    """Give those that a detector has: no radius without polar layers, no neighbours of one."""
    return {name: entry for name, entry in OBSERVABLES.items() if entry.num_columns(grid)}
