"""The papers that a run stands on, as BibTeX; `papers.bib` holds them by short names."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

from calo_train.errors import DataError, nearest_names

if TYPE_CHECKING:
    from collections.abc import Iterable

# What every report holds: separation powers, FPD and KPD, precision to coverage, the protocol.
METRICS = ("calochallenge", "separation-power", "fpd-kpd", "prdc")
_ENTRY = re.compile(r"^@\w+\{([\w-]+),.*?^\}$", re.DOTALL | re.MULTILINE)


def entries() -> dict[str, str]:
    """Give every entry by its short name."""
    text = (files(__package__) / "papers.bib").read_text(encoding="utf-8")
    return {match.group(1): match.group(0) for match in _ENTRY.finditer(text)}


def bibtex(names: Iterable[str]) -> str:
    """Give the entries of these names, each once, in their order; DataError for an unknown one."""
    known = entries()
    names = list(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(
            f"no paper is known as {', '.join(unknown)}",
            where="papers of the data set or family",
            do=f"use short names of calo_train/references/papers.bib; "
            f"{nearest_names(unknown[0], known)}",
        )
    return "\n\n".join(known[name] for name in dict.fromkeys(names))
