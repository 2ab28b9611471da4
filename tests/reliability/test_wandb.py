"""W&B as users use it: offline, one run a training, a server that fails, nothing private sent."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import commands
import forked
import pytest

from calo_train.tracking import TrackedRun, Tracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("wandb")
RUN = "runs/native/l2lflows/default"
KEY = "a1b2c3d4e5" * 4  # of the length of a W&B key
_BLOCK = 32768  # of a .wandb file, which has LevelDB's log format
_HEADER = struct.Struct("<IHB")


def history_of(path: Path) -> list[dict[str, object]]:
    """Read the history rows of a .wandb file."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for content in _records(path.read_bytes()):
        record = Record.FromString(content)
        if record.WhichOneof("record_type") == "history":
            rows.append({
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            })  # fmt: skip
    return rows


def _records(content: bytes) -> Iterator[bytes]:
    place, whole = 7, b""  # after the file's own header
    while place + _HEADER.size <= len(content):
        if _BLOCK - place % _BLOCK < _HEADER.size:
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = _HEADER.unpack_from(content, place)
        whole += content[place + _HEADER.size : place + _HEADER.size + length]
        place += _HEADER.size + length
        if kind in (1, 4):  # full, or the last piece
            yield whole
            whole = b""
        elif kind == 0:
            return


def epochs_of(run: Path) -> list[tuple[str, int]]:
    """Give stage and epoch of every row that W&B was given, over all starts of a training."""
    rows = [row for log in sorted(run.glob("wandb/*run-*/*.wandb")) for row in history_of(log)]
    return [
        (key.partition("/")[0], int(str(row[key])))
        for row in rows for key in row if key.endswith("/epoch")
    ]  # fmt: skip


def test_killed_and_resumed_training_is_one_run_without_repeats(
    tmp_path: Path, tiny_data: Path
) -> None:
    """W4: the same id after kill -9, steps go on, none twice; W5: one run for all parts."""
    words = commands.tiny_training(
        tiny_data, "logger=wandb", "model.causal_training.num_epochs=12",
        "trainer.checkpoint_interval=0.05s",
    )  # fmt: skip
    process = forked.start("calo-train", *words, cwd=tmp_path, log=tmp_path / "log")
    deadline = time.monotonic() + commands.TIMEOUT
    while not list(tmp_path.glob(f"{RUN}/stages/causal/*/last.ckpt")):
        assert process.is_running, process.log
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while ("energy", 1) not in epochs_of(tmp_path / RUN):  # the tracker outlives the kill
        assert time.monotonic() < deadline
        time.sleep(0.1)
    done = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log")
    assert done.process.exitcode == 0, done.log
    starts = [path.name for path in (tmp_path / RUN / "wandb").glob("*run-*")]
    assert len({name.rpartition("-")[2] for name in starts}) == 1, starts
    epochs = epochs_of(tmp_path / RUN)
    assert len(epochs) == len(set(epochs)), "an epoch was sent twice"
    assert epochs[-1] == ("causal", 12)
    # The kill may take one epoch that was on its way.
    assert len(epochs) >= 2 + 12 - 1
    rows = [row for log in (tmp_path / RUN).rglob("*.wandb") for row in history_of(log)]
    names = {name for row in rows for name in row}
    assert {"energy/0/train_loss", "causal/0/validation_loss", "causal/2/learning_rate"} <= names


@contextmanager
def hanging_server() -> Iterator[str]:
    """A server that accepts connections, reads, and never answers."""
    held = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in held:
            connection.close()


def test_server_that_never_answers_holds_up_nothing(
    tmp_path: Path, tiny_data: Path, finished_run: Path
) -> None:
    """W3: the training ends as without a logger, exit 0, after at most the limit, with a warning.

    No key is written anywhere (X9).
    """
    with hanging_server() as url:
        environment = {**commands.environment(), "WANDB_API_KEY": KEY, "WANDB_BASE_URL": url}
        words = commands.tiny_training(
            tiny_data, "logger=wandb", "logger.mode=online", "logger.finish_limit=3s"
        )
        started = time.monotonic()
        done = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log",
                          prepare=_Environment(environment))  # fmt: skip
    assert done.process.exitcode == 0, done.log
    assert "wandb sync" in done.log
    assert time.monotonic() - started < commands.TIMEOUT
    for path in (tmp_path / RUN).rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    parts = sorted(path.name for path in (finished_run / "generator").iterdir())
    assert sorted(path.name for path in (tmp_path / RUN / "generator").iterdir()) == parts


class _Environment:
    """Set variables in a forked command."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def __call__(self) -> None:
        os.environ.update(self._values)


def test_finishing_waits_no_longer_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """W3: even a child that does not end by itself is left after the limit and a second."""
    monkeypatch.setattr("calo_train.tracking.PROCESS", ["-c", "import time; time.sleep(3600)"])
    tracked = TrackedRun("id", "project", "name", str(tmp_path), False, 0.5, {})
    tracker = Tracker(tracked, where=tmp_path)
    for epoch in range(5000):  # more than a pipe holds: nobody waits for it
        tracker.log({"energy/epoch": epoch}, stage="energy")
    started = time.monotonic()
    tracker.close()
    assert time.monotonic() - started < 30
    assert "did not finish" in caplog.text
    assert tracker._child.poll() is not None


def test_a_process_that_dies_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """W3: a training does not end as if its W&B run had been written."""
    monkeypatch.setattr("calo_train.tracking.PROCESS", ["-c", "raise SystemExit(3)"])
    tracker = Tracker(
        TrackedRun("id", "project", "name", str(tmp_path), False, 30.0, {}), where=tmp_path
    )
    tracker.close()
    assert "ended with status 3" in caplog.text


def test_evaluation_goes_to_the_same_run(tmp_path: Path, tiny_data: Path) -> None:
    """Figures and the table of calo-eval are added to the W&B run of the training, offline."""
    words = commands.tiny_training(tiny_data, "logger=wandb")
    done = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log")
    assert done.process.exitcode == 0, done.log
    (trained,) = (tmp_path / RUN / "wandb").glob("offline-run-*")
    done = forked.run("calo-eval", RUN, "-n", "30", "--classifier", "none", cwd=tmp_path,
                      log=tmp_path / "log")  # fmt: skip
    assert done.process.exitcode == 0, done.log
    (judged,) = set((tmp_path / RUN / "wandb").glob("offline-run-*")) - {trained}
    assert judged.name.rpartition("-")[2] == trained.name.rpartition("-")[2]
    (log,) = judged.glob("*.wandb")
    names = {name for row in history_of(log) for name in row}
    assert any("/metrics/" in name for name in names), names
    assert len(names) > 5, "figures"
    # A word of its own, and not inside base64: a short name stands there by chance.
    host = re.compile(rb"(?<![\w+/])" + re.escape(os.uname().nodename.encode()) + rb"(?![\w+/])")
    for path in (tmp_path / RUN).rglob("*"):
        is_text = path.suffix in (".yaml", ".json", ".csv", ".log", ".html", ".wandb")
        if path.is_file() and is_text and not path.name.startswith("debug"):
            assert host.search(path.read_bytes()) is None, path
