"""What befalls a training: kills, full disks, lost memory, wrong clocks, other process counts."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import commands
import forked
import pytest
import torch
from safetensors.torch import load_file

from calo_train.errors import MachineError
from calo_train.training.checkpoints import LAST, PREVIOUS, load_checkpoint, save_checkpoint
from calo_train.training.faults import fitting_batch
from calo_train.training.lock import owned

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "runs/native/l2lflows/default"
OFTEN = "trainer.checkpoint_interval=0.01s"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """The run that every disturbed one has to equal."""
    folder = tmp_path_factory.mktemp("undisturbed")
    words = commands.tiny_training(tiny_data)
    done = forked.run("calo-train", *words, cwd=folder, log=folder / "log")
    assert done.process.exitcode == 0, done.log
    return folder / RUN


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Give all weights of a run's generator."""
    return {
        f"{path.name}/{name}": value
        for path in sorted((run / "generator").glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def require_equal(run: Path, expected: Path) -> None:
    """Assert that two generators have the same bits."""
    found, wanted = weights(run), weights(expected)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def require_message(done: forked.Forked, code: int, *words: str) -> None:
    """Assert the exit code and a three-part message in the log of a forked command."""
    assert done.process.exitcode == code, done.log
    for word in ("error:", "where:", "do:", *words):
        assert word in done.log, done.log
    assert "Traceback" not in done.log


def save_often() -> None:
    """Save as often as asked for, however long it takes."""
    from calo_train.training import fit

    fit._LARGEST_SAVING_SHARE = float("inf")


def die_amid_second_checkpoint() -> None:
    """Write half of the second checkpoint of a fit, then die as by kill -9."""
    import io

    save_often()
    whole_save = torch.save

    def half_save(content: Any, path: Path) -> None:
        if not (path.parent / LAST).exists():
            whole_save(content, path)
            return
        buffer = io.BytesIO()
        whole_save(content, buffer)
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half_save


def test_kill_while_a_checkpoint_is_written(
    tmp_path: Path, tiny_data: Path, undisturbed: Path
) -> None:
    """R2: the previous one loads, the stray file is removed with a log line, the end is equal."""
    words = commands.tiny_training(tiny_data, OFTEN)
    killed = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log",
                        prepare=die_amid_second_checkpoint)  # fmt: skip
    assert killed.process.exitcode == -signal.SIGKILL, killed.log
    (stray,) = (tmp_path / RUN).rglob(".last.ckpt.part-*")
    done = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log")
    assert done.process.exitcode == 0, done.log
    assert done.log.count(stray.name) == 1
    assert "going on at epoch" in done.log
    assert list((tmp_path / RUN).rglob(".*")) == []
    require_equal(tmp_path / RUN, undisturbed)


def test_flipped_bit_of_a_checkpoint_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R11: torch would load it; the one before is used, with a warning that names both."""
    for epoch in (3, 4):
        save_checkpoint(tmp_path, {"epoch": epoch, "batch": 0, "weights": torch.ones(1000)})
    last = tmp_path / LAST
    content = bytearray(last.read_bytes())
    place = content.index(torch.ones(8).numpy().tobytes())
    content[place + 2] ^= 1
    last.write_bytes(content)
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["epoch"] == 3
    assert PREVIOUS in caplog.text
    assert "checksum" in caplog.text
    (tmp_path / PREVIOUS).write_bytes(b"nothing")
    with pytest.raises(MachineError, match="no checkpoint can be read"):
        load_checkpoint(tmp_path)
    assert last.exists()


def die_amid_stored_parts(num_stored: int) -> None:
    """Die as by kill -9 when so many parts are stored, or all of them and the checkpoint left."""
    from calo_train.training import fit

    save_often()
    discard, replacing, stored = fit.discard_checkpoints, fit.replacing, []

    def counted(path: Path) -> Any:
        if path.suffix == ".safetensors":
            if len(stored) == num_stored:
                os.kill(os.getpid(), signal.SIGKILL)
            stored.append(path)
        return replacing(path)

    def dying_discard(folder: Path) -> None:
        if len(stored) == num_stored:
            os.kill(os.getpid(), signal.SIGKILL)
        discard(folder)

    fit.replacing, fit.discard_checkpoints = counted, dying_discard


@pytest.mark.parametrize("num_stored", [2, 4])
def test_kill_while_parts_are_stored(
    num_stored: int, tmp_path: Path, tiny_data: Path, undisturbed: Path
) -> None:
    """R1: after the energy flow and one of three causal flows, or all; nothing trains anew."""
    words = commands.tiny_training(tiny_data, OFTEN)
    killed = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log",
                        prepare=partial(die_amid_stored_parts, num_stored))  # fmt: skip
    assert killed.process.exitcode == -signal.SIGKILL, killed.log
    assert len(list((tmp_path / RUN).glob("stages/*/parts/*.safetensors"))) == num_stored
    done = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log")
    assert done.process.exitcode == 0, done.log
    assert ("going on at epoch" in done.log) == (num_stored < 4)
    require_equal(tmp_path / RUN, undisturbed)
    names = {str(path.relative_to(tmp_path / RUN)) for path in (tmp_path / RUN).rglob("*")}
    assert names == {str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*")}


def die_when_all_is_written() -> None:
    """Die as by kill -9 amid the last change of run.yaml, which says that the run is finished."""
    from calo_train.training.run_folder import RunFolder

    write_record = RunFolder.write_record

    def dying(self: RunFolder, record: Any) -> None:
        write_record(self, record)
        if record["state"] == "finished":
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.write_record = dying  # type: ignore[method-assign]


def test_kill_at_the_very_end_leaves_nothing_behind(
    tmp_path: Path, tiny_data: Path, undisturbed: Path
) -> None:
    """R1, R5: the run is finished; the same command says so and frees its locks."""
    words = commands.tiny_training(tiny_data)
    killed = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log",
                        prepare=die_when_all_is_written)  # fmt: skip
    assert killed.process.exitcode == -signal.SIGKILL, killed.log
    left = {path.name for path in (tmp_path / RUN).iterdir()} - {
        path.name for path in undisturbed.iterdir()
    }
    assert left == {"lock", ".run.yaml.turn"}
    done = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log")
    assert done.process.exitcode == 0, done.log
    assert "finished, nothing to do" in done.log
    names = {str(path.relative_to(tmp_path / RUN)) for path in (tmp_path / RUN).rglob("*")}
    assert names == {str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*")}


def test_second_process_names_the_first(tmp_path: Path, tiny_data: Path) -> None:
    """R7: host, pid, since and command; the first is undisturbed."""
    run = tmp_path / RUN
    run.mkdir(parents=True)
    with owned(run / "lock"):
        first = (run / "lock").read_bytes()
        done = forked.run("calo-train", *commands.tiny_training(tiny_data), cwd=tmp_path,
                          log=tmp_path / "log")  # fmt: skip
        assert (run / "lock").read_bytes() == first
    owner = json.loads(first)
    told = [str(owner[key]) for key in ("host", "pid", "since", "command")]
    require_message(done, 5, "another process", *told)


def fill_disk_at_second_checkpoint(folder: str) -> None:
    """Use up the rest of a small file system once a checkpoint is written."""
    from calo_train.training.fit import _FitCallback

    save_often()
    save = _FitCallback._save

    def full_save(self: Any, module: Any) -> None:
        if (self._folder / LAST).exists():
            with suppress(OSError), Path(folder, "ballast").open("wb", buffering=0) as ballast:
                while ballast.write(bytes(4096)):
                    pass
        save(self, module)

    _FitCallback._save = full_save


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB; only root may mount one."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_disk_that_fills_up_stops_the_training_and_loses_nothing(
    small_disk: Path, tmp_path: Path, tiny_data: Path, undisturbed: Path
) -> None:
    """R9: a real full disk: exit 5 with path and what is free; freed, the same command ends."""
    words = commands.tiny_training(tiny_data, OFTEN)
    fill = partial(fill_disk_at_second_checkpoint, str(small_disk))
    log = tmp_path / "log"
    done = forked.run("calo-train", *words, cwd=small_disk, log=log, prepare=fill)
    require_message(done, 5, "disk is full", "last.ckpt", "free")
    (small_disk / "ballast").unlink()
    done = forked.run("calo-train", *words, cwd=small_disk, log=tmp_path / "log")
    assert done.process.exitcode == 0, done.log
    assert "going on at epoch" in done.log
    require_equal(small_disk / RUN, undisturbed)


def run_out_of_gpu_memory(error: RuntimeError) -> None:
    """Raise it at the fourth step."""
    from calo_train.training.group_module import GroupModule

    step, steps = GroupModule.training_step, []

    def failing_step(self: Any, *arguments: Any) -> None:
        steps.append(1)
        if len(steps) == 4:
            raise error
        step(self, *arguments)

    GroupModule.training_step = failing_step


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    ],
)
def test_full_gpu_names_a_batch_that_should_fit(
    error: RuntimeError, tmp_path: Path, tiny_data: Path
) -> None:
    """R15: batch, peak, free, a batch size that should fit; the checkpoint stays.

    The errors are torch's allocator's and CUDA's own, raised without a GPU; the amounts are zero.
    """
    done = forked.run(
        "calo-train", *commands.tiny_training(tiny_data, OFTEN), cwd=tmp_path,
        log=tmp_path / "log", prepare=partial(run_out_of_gpu_memory, error),
    )  # fmt: skip
    require_message(done, 5, "batch of 32", "peak", "free", "energy_training.batch_size=16")
    assert list((tmp_path / RUN).rglob("last.ckpt"))


@pytest.mark.parametrize(
    ("size", "room", "used", "fits"),
    [(1024, 64, 64, 256), (1024, 640, 64, 512), (1024, 8, 64, 32), (1, 1, 9, 1), (32, 0, 0, 16)],
)
def test_batch_that_should_fit(size: int, room: int, used: int, fits: int) -> None:
    """R15: a power of two below the one that failed, by the memory that each shower took."""
    assert fitting_batch(size, room=room, used=used) == fits


def test_killed_process_is_told_at_the_next_start_with_its_memory(
    tmp_path: Path, tiny_data: Path
) -> None:
    """R16: signal 9, the peak, and the key that lowers it."""
    words = commands.tiny_training(tiny_data, "model.causal_training.num_epochs=500", OFTEN)
    process = forked.start("calo-train", *words, cwd=tmp_path, log=tmp_path / "log")
    lock, deadline = tmp_path / RUN / "lock", time.monotonic() + commands.TIMEOUT
    while "peak_memory" not in (lock.read_text() if lock.exists() else ""):
        assert process.is_running, process.log
        assert time.monotonic() < deadline
        time.sleep(0.01)
    peak = json.loads(lock.read_text())["peak_memory"]
    assert 50e6 < peak < 50e9, "a process with torch, in bytes"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = forked.run("calo-train", *words, "trainer.max_time=0.01s", cwd=tmp_path,
                      log=tmp_path / "log")  # fmt: skip
    assert done.process.exitcode == 75, done.log
    for word in ("signal 9", "iB", "dataset.memory_budget"):
        assert word in done.log


def walk_clock_backwards() -> None:
    """Let the wall clock go back by an hour whenever it is read, in a wrong time zone."""
    os.environ["TZ"] = "Pacific/Kiritimati"
    time.tzset()
    wall, reads = time.time, []

    def backwards() -> float:
        reads.append(1)
        return wall() - 3600.0 * len(reads)

    time.time = backwards


def test_wrong_clock_changes_nothing(tmp_path: Path, tiny_data: Path, undisturbed: Path) -> None:
    """R17: durations do not come from the wall clock, and no name of a file does."""
    done = forked.run("calo-train", *commands.tiny_training(tiny_data), "--json", cwd=tmp_path,
                      log=tmp_path / "log", prepare=walk_clock_backwards)  # fmt: skip
    assert done.process.exitcode == 0, done.log
    result = json.loads(done.log.splitlines()[-1])
    assert 0 < result["seconds"] < commands.TIMEOUT
    require_equal(tmp_path / RUN, undisturbed)
    names = {str(path.relative_to(tmp_path / RUN)) for path in (tmp_path / RUN).rglob("*")}
    assert names == {str(path.relative_to(undisturbed)) for path in undisturbed.rglob("*")}


def refuse_file_locks() -> None:
    """Make every kind of file lock fail, as on a network file system without a lock service."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl.flock = fcntl.lockf = refuse


def test_file_system_without_locks(tmp_path: Path, tiny_data: Path) -> None:
    """R22: another process holds the data file's lock, and there are none to take."""
    with tiny_data.open("rb") as data:
        fcntl.flock(data, fcntl.LOCK_EX)
        done = forked.run("calo-train", *commands.tiny_training(tiny_data, "only=energy"),
                          cwd=tmp_path, log=tmp_path / "log",
                          prepare=refuse_file_locks)  # fmt: skip
    assert done.process.exitcode == 0, done.log


def hang_while_streaming(error: str | None) -> None:
    """Let the fifth read of the data hang, or raise an error; give up on it after a second."""
    from calo_train.showers import stream
    from calo_train.showers.source import ShowerSource

    read, reads = ShowerSource.read, []

    def failing_read(self: Any, start: int, stop: int) -> Any:
        if stream.threading.current_thread().name == "showers":
            reads.append(1)
            if len(reads) == 5 and error is None:
                time.sleep(3600)
            if len(reads) == 5:
                raise OSError(errno.EIO, error)
        return read(self, start, stop)

    ShowerSource.read = failing_read
    stream.READING_LIMIT = 1.0


@pytest.mark.parametrize(("error", "word"), [(None, "hangs"), ("Input/output error", "output")])
def test_reader_that_hangs_or_fails_ends_the_training(
    error: str | None, word: str, tmp_path: Path, tiny_data: Path
) -> None:
    """R21: exit 5 with the cause in the time limit; the hanging thread holds up nothing."""
    words = commands.tiny_training(tiny_data, "dataset.memory_budget=40KiB", "only=energy")
    done = forked.run("calo-train", *words, cwd=tmp_path, log=tmp_path / "log",
                      prepare=partial(hang_while_streaming, error))  # fmt: skip
    require_message(done, 5, word)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A folder with runs in float64: `one` process, `two`, and `changed`, two and then one."""
    folder = tmp_path_factory.mktemp("processes")
    words = [*commands.tiny_training(tiny_data, "trainer=cpu"), "trainer.precision=64-true"]
    both = "trainer.num_devices=2"
    steps = [
        ("name=one", (), 0), ("name=two", (both,), 0),
        ("name=changed", (both, "trainer.max_time=0.01s"), 75), ("name=changed", (), 0),
    ]  # fmt: skip
    for number, (name, more, code) in enumerate(steps):
        log = folder / f"log-{number}"
        if both in more:  # starts its second process by its own command line
            done = commands.run("calo-train", *words, name, *more, cwd=folder)
            log.write_text(done.stderr)
            assert done.returncode == code, done.stderr
        else:
            forked.run("calo-train", *words, name, *more, cwd=folder, log=log).require_end(code)
    return folder


def losses_of(run: Path) -> list[float]:
    """Give all training and validation losses of a run, in order."""
    return [
        float(value)
        for path in sorted(run.glob("stages/*/*/metrics.csv"))
        for line in path.read_text(encoding="utf-8").splitlines()[1:]
        for value in line.split(",")[2:4]
    ]


def test_two_processes_train_as_one(two_processes: Path) -> None:
    """Noise and batches do not depend on the number of processes: losses agree to 1e-6.

    No shower is lost or used twice, else a mean over showers would differ by far more; validation
    is reduced over both.
    """
    folder = two_processes / RUN
    one, two = losses_of(folder.with_name("one")), losses_of(folder.with_name("two"))
    assert len(one) == 2 * 2 * 4, "two losses of two epochs of four parts"
    assert two == pytest.approx(one, rel=1e-6)


def test_other_number_of_processes_goes_on_with_a_warning(two_processes: Path) -> None:
    """R20: two processes, then one: allowed, the batch is kept, and bits may differ."""
    log = (two_processes / "log-3").read_text()
    assert "1 processes where 2 trained before" in log
    assert "bits" in log
    folder = two_processes / RUN
    one, changed = losses_of(folder.with_name("one")), losses_of(folder.with_name("changed"))
    assert changed == pytest.approx(one, rel=1e-6)


def test_lost_process_of_two_ends_the_other(tmp_path: Path, tiny_data: Path) -> None:
    """R21: kill -9 of the second process: the first exits 5 and says so; no orphan is left."""
    words = commands.tiny_training(
        tiny_data, "trainer.num_devices=2", "model.energy_training.num_epochs=100000",
        "trainer.checkpoint_interval=0.2s",
    )  # fmt: skip
    first = commands.start("calo-train", *words, cwd=tmp_path)
    deadline = time.monotonic() + commands.TIMEOUT
    while not list(tmp_path.glob(f"{RUN}/stages/energy/0/last.ckpt")):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    second = next(
        int(pid) for pid in children if b"cli" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(second, signal.SIGKILL)
    _, log = first.communicate(timeout=commands.TIMEOUT)
    assert first.returncode == 5, log
    assert "another process of this training is gone" in log
    # Gone, or dead and waiting for whoever inherited it; its command line is empty then.
    left = Path(f"/proc/{second}/cmdline")
    assert not left.exists() or left.read_bytes() == b""
