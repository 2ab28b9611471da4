"""A cache of compiled code of the tests' own, so that what is kept can be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calo_train.kernels.compiler import CACHE_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "a cache"))
    return tmp_path / "a cache" / "kernels"
