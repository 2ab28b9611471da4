"""Compiled code is kept between processes, and never trusted blindly."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest
from vector_functions import applied, compiled, plain_machine

from calo_train.kernels import compiler
from calo_train.kernels.threads import run_in_ranges

if TYPE_CHECKING:
    from pathlib import Path

    from calo_train.kernels.values import Vector

VALUES = np.arange(64, dtype=np.float64)


def _doubled(x: Vector) -> Vector:
    return x + x


def _tripled(x: Vector) -> Vector:
    return x + x + x


def _compiles(caplog: pytest.LogCaptureFixture) -> int:
    return sum("compiling a test's kernel" in record.message for record in caplog.records)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_code_is_compiled_once_and_said_so(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert np.array_equal(applied(compiled(_doubled, "float64"), VALUES), 2 * VALUES)
    assert _compiles(caplog) == 1
    assert len(list(cache.iterdir())) == 1


def test_other_code_precision_and_processor_have_their_own(cache: Path) -> None:
    compiled(_doubled, "float64")
    compiled(_tripled, "float64")
    compiled(_doubled, "float32")
    compiled(_doubled, "float64", plain_machine())
    assert len(list(cache.iterdir())) == 4


def test_changed_sources_are_compiled_again(
    cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled(_doubled, "float64")
    monkeypatch.setattr(compiler, "_digest_of_sources", lambda _module: "edited")
    compiled(_doubled, "float64")
    assert _compiles(caplog) == 2
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_damaged_code_is_compiled_again(
    cache: Path, caplog: pytest.LogCaptureFixture, damage: bytes | None
) -> None:
    compiled(_doubled, "float64")
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content if damage is None else damage)
    assert np.array_equal(applied(compiled(_doubled, "float64"), VALUES), 2 * VALUES)
    assert _compiles(caplog) == 2


def test_without_a_folder_code_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Turned off, or in a place that is no folder."""
    (tmp_path / "file").write_text("")
    for place in ("", str(tmp_path / "file")):
        monkeypatch.setenv(compiler.CACHE_VARIABLE, place)
        assert compiler.cache_folder() is None
        assert np.array_equal(applied(compiled(_doubled, "float64"), VALUES), 2 * VALUES)
    assert _compiles(caplog) == 2


@pytest.mark.parametrize(("stop", "grain", "num_threads"), [(0, 8, 2), (7, 8, 3), (100, 8, 3)])
def test_pieces_of_a_range_cover_it_once(stop: int, grain: int, num_threads: int) -> None:
    seen: list[tuple[int, int]] = []
    run_in_ranges(lambda *piece: seen.append(piece), stop, grain=grain, num_threads=num_threads)
    pieces = sorted(seen)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == stop
    assert all(end == first for (_, end), (first, _) in itertools.pairwise(pieces))
    assert all(first % grain == 0 for first, _ in pieces)


def test_an_error_in_a_thread_arrives() -> None:
    def fail(first: int, _end: int) -> None:
        if first:
            raise ValueError("the second piece")

    with pytest.raises(ValueError, match="second piece"):
        run_in_ranges(fail, 100, grain=8, num_threads=2)
