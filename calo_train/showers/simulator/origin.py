"""How simulated showers are named wherever they go: in files, logs, run.yaml and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

GENERATOR = "parametrisation (Grindhammer & Peters, hep-ex/0001020)"
SIMULATION_NOTE = (
    "simulated by a parametrisation (Grindhammer & Peters, hep-ex/0001020), not by transport "
    "through matter: for trying things out, not for physics"
)


def simulation_notes(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the warning that showers of a parametrisation carry, from attributes of a file."""
    return (SIMULATION_NOTE,) if "simulation" in attributes else ()
