"""Batches: the same rows whatever the memory, in an order that a resumed run repeats."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from shower_files import cartesian, random_showers, write

from calo_train.errors import DataError
from calo_train.showers.source import ShowerSource, open_paths
from calo_train.showers.stream import BatchStream

NUM_SHOWERS = 9000
BATCH = 64
SUPERBLOCK = 2048
AMPLE = 1 << 30
# Room for two super-blocks and two batches of 100-byte rows in three quarters of the budget.
SMALL = (2 * SUPERBLOCK + 2 * BATCH) * 100 * 4 // 3 + 100
ROW_BYTES = 4 * (24 + 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ShowerSource:
    folder = tmp_path_factory.mktemp("stream")
    showers = random_showers(cartesian(), NUM_SHOWERS)
    paths = [
        write(folder / "a.h5", showers.rows(slice(0, 5000)), mantissa_bits=10),
        write(folder / "b.h5", showers.rows(slice(5000, NUM_SHOWERS))),
    ]
    return open_paths(paths, geometry=cartesian())


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Four of five rows, as a training split has them."""
    return np.flatnonzero(np.random.default_rng(5).random(NUM_SHOWERS) < 0.8)


def stream(
    source: ShowerSource, rows: np.ndarray, *, budget: int, shuffle: bool = True, seed: int = 4
) -> BatchStream:
    return BatchStream(
        source, rows, batch_size=BATCH, seed=seed, memory_budget=budget, shuffle=shuffle
    )


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("budget", [AMPLE, SMALL, 1])
def test_an_epoch_gives_every_row_once_with_its_own_values(
    source: ShowerSource, rows: np.ndarray, budget: int, shuffle: bool
) -> None:
    """D11: the same rows whatever the budget, down to none at all."""
    if budget == 1:
        rows = rows[:1000]
    batches = stream(source, rows, budget=budget, shuffle=shuffle)
    assert batches.is_in_memory == (budget == AMPLE)
    whole = source.read(0, NUM_SHOWERS)
    given = list(batches.batches(epoch=2))
    order = np.concatenate([batch.rows for batch in given])
    np.testing.assert_array_equal(order, batches.order(2))
    np.testing.assert_array_equal(np.sort(order), rows)
    assert [len(batch.rows) for batch in given[:-1]] == [BATCH] * (len(batches) - 1)
    for batch in given:
        np.testing.assert_array_equal(batch.showers.energies, whole.energies[batch.rows])
        np.testing.assert_array_equal(
            batch.showers.conditions["incident_energy"],
            whole.conditions["incident_energy"][batch.rows],
        )
        np.testing.assert_array_equal(batch.mantissa_bits, source.mantissa_bits[batch.rows])
    assert (np.diff(order) > 0).all() == (not shuffle)


@pytest.mark.parametrize("budget", [AMPLE, SMALL])
def test_order_is_a_function_of_seed_and_epoch(
    source: ShowerSource, rows: np.ndarray, budget: int
) -> None:
    first = stream(source, rows, budget=budget)
    again = stream(source, rows, budget=budget)
    np.testing.assert_array_equal(first.order(3), again.order(3))
    assert (first.order(3) != first.order(4)).mean() > 0.99
    other = stream(source, rows, budget=budget, seed=5)
    assert (first.order(3) != other.order(3)).mean() > 0.99


@pytest.mark.parametrize("budget", [AMPLE, SMALL])
@pytest.mark.parametrize("start", [1, 40, 111])
def test_a_resumed_epoch_goes_on_with_the_same_batches(
    source: ShowerSource, rows: np.ndarray, budget: int, start: int
) -> None:
    whole = list(stream(source, rows, budget=budget).batches(epoch=1))
    rest = list(stream(source, rows, budget=budget).batches(epoch=1, start=start))
    assert len(rest) == len(whole) - start
    for expected, found in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.showers.energies, expected.showers.energies)


def test_a_resumed_epoch_does_not_read_what_lies_before(
    source: ShowerSource, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_read = []
    read = source.read
    monkeypatch.setattr(
        source, "read", lambda start, stop: num_read.append(stop - start) or read(start, stop)
    )
    batches = stream(source, rows, budget=SMALL)
    list(batches.batches(epoch=0, start=len(batches) - 1))
    assert sum(num_read) < NUM_SHOWERS / 2


def test_only_two_superblocks_are_held(
    source: ShowerSource, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D11: what is decoded at one time stays within the budget."""
    held: list[int] = []
    largest = 0
    load = BatchStream._load

    def counting(self: BatchStream, *arguments: object) -> object:
        loaded = load(self, *arguments)  # type: ignore[arg-type]
        held.append(id(loaded))
        _Released.watch(loaded.showers.energies, held, id(loaded))
        return loaded

    monkeypatch.setattr(BatchStream, "_load", counting)
    batches = stream(source, rows, budget=SMALL)
    for batch in batches.batches(epoch=0):
        largest = max(largest, len(held))
        assert batch.showers.energies.nbytes <= BATCH * 24 * 4
    assert 1 <= largest <= 2
    sizes = [len(order) for _, order in batches._superblocks(0)]
    assert max(sizes) <= SUPERBLOCK
    assert (2 * max(sizes) + 2 * BATCH) * ROW_BYTES <= 0.75 * SMALL


class _Released:
    """Take an array's mark out of a list when the array is freed."""

    @staticmethod
    def watch(array: np.ndarray, marks: list[int], mark: int) -> None:
        import weakref

        weakref.finalize(array, marks.remove, mark)


def test_neighbours_in_the_file_meet_as_rarely_as_stated(
    source: ShowerSource, rows: np.ndarray
) -> None:
    """D11: pairs of one block share a batch with probability (B - 1)/(S - 1).

    Averaged over 20 epochs of about 7,000 pairs; pairs of one epoch are nearly independent, so
    the standard error is sqrt(p / 140,000), and 4 of them are a false alarm rate of 6e-5.
    """
    batches = stream(source, rows, budget=SMALL)
    expected, observed, displacement = [], [], []
    for epoch in range(20):
        position = np.empty(NUM_SHOWERS, dtype=np.int64)
        order = batches.order(epoch)
        position[order] = np.arange(len(order))
        superblock = np.empty(NUM_SHOWERS, dtype=np.int64)
        size = np.empty(NUM_SHOWERS)
        for number, (_, members) in enumerate(batches._superblocks(epoch)):
            superblock[members], size[members] = number, len(members)
        pairs = rows[:-1], rows[1:]
        shared = superblock[pairs[0]] == superblock[pairs[1]]
        expected.append(np.mean(shared * (BATCH - 1) / (size[pairs[0]] - 1)))
        observed.append(np.mean(position[pairs[0]] // BATCH == position[pairs[1]] // BATCH))
        displacement.append(np.abs(position[rows] - np.arange(len(rows))).mean() / len(rows))
    probability = np.mean(expected)
    full_shuffle = (BATCH - 1) / (len(rows) - 1)
    assert abs(np.mean(observed) - probability) < 4 * np.sqrt(probability / (20 * len(rows)))
    assert probability < 1.2 * full_shuffle * len(rows) / SUPERBLOCK
    # A full shuffle moves a row by a third of the epoch on average; blocks do nearly as well.
    assert abs(np.mean(displacement) - 1 / 3) < 0.02


def test_a_superblock_mixes_many_places_of_the_file(
    source: ShowerSource, rows: np.ndarray
) -> None:
    batches = stream(source, rows, budget=SMALL)
    places = [len(members) for members, _ in batches._superblocks(0)]
    assert np.mean(places[:-1]) >= 16


def test_in_memory_rows_are_only_those_of_the_split(
    source: ShowerSource, rows: np.ndarray
) -> None:
    batches = stream(source, rows, budget=AMPLE)
    assert len(batches.showers) == len(rows)
    np.testing.assert_array_equal(batches.mantissa_bits, source.mantissa_bits[rows])
    assert batches.showers is batches.showers


def test_a_training_and_a_validation_stream_share_the_budget(source: ShowerSource) -> None:
    """Together they hold at most what the budget says."""
    rows = np.arange(4000)
    exact = 4000 * ROW_BYTES
    assert stream(source, rows, budget=exact * 4 // 3 + 1).is_in_memory
    assert not stream(source, rows, budget=exact * 4 // 3 - 100).is_in_memory
    assert stream(source, rows, budget=exact * 4, shuffle=False).is_in_memory
    assert not stream(source, rows, budget=exact * 4 - 100, shuffle=False).is_in_memory


def test_an_error_while_reading_ahead_reaches_the_consumer(
    source: ShowerSource, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = source.read, []

    def failing(start: int, stop: int) -> object:
        calls.append(start)
        if len(calls) > 25:
            raise DataError("rows are damaged", where="a.h5", do="fetch it again")
        return read(start, stop)

    monkeypatch.setattr(source, "read", failing)
    with pytest.raises(DataError, match="rows are damaged"):
        list(stream(source, rows, budget=SMALL).batches(epoch=0))
    assert not _reader_threads()


def test_no_thread_outlives_an_epoch_that_is_left_early(
    source: ShowerSource, rows: np.ndarray
) -> None:
    batches = stream(source, rows, budget=SMALL).batches(epoch=0)
    next(batches)
    assert _reader_threads()
    batches.close()  # type: ignore[attr-defined]
    assert not _reader_threads()


def _reader_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("showers")]
