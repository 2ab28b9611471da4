"""Drawing with a small made-up family: cuts, interruptions and bad energies."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import detectors
import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from calo_train.errors import CaloTrainError, DivergedError, MachineError, UsageError
from calo_train.families.contracts import DrawnTile, Family, Sampler, Stage
from calo_train.families.generator import Generator
from calo_train.quantities import Spectrum
from calo_train.sampling.draw import Drawn, draw_to_file
from calo_train.sampling.merge import merge_shards
from calo_train.sampling.request import SampleRequest, Shard
from calo_train.sampling.tile_store import Tile, TileStore, owned_store
from calo_train.sampling.tiles import Computing, Drawing, draw_tiles
from calo_train.showers.source import open_paths
from calo_train.showers.statistics import ShowerStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GEOMETRY = detectors.cartesian()
TILE = 8
ENERGIES = {"incident_energy": Spectrum(20_000.0, 80_000.0)}


class _LinearSampler(Sampler):
    """Energies are absolute values of a fixed linear map of normals, in shares of the incident."""

    tile = TILE
    num_normals = 5

    def __init__(self, family: _LinearFamily, dtype: torch.dtype) -> None:
        random = torch.Generator().manual_seed(1)
        self._map = torch.randn(5, GEOMETRY.num_voxels, generator=random).to(dtype)
        self._family = family
        self.num_drawn = 0

    def draw(self, normals: Tensor, conditions: Mapping[str, Tensor]) -> DrawnTile:
        assert torch.get_num_threads() == 1
        assert len(normals) == TILE
        self.num_drawn += 1
        if self.num_drawn > self._family.tiles_until_power_cut:
            raise KeyboardInterrupt
        incident = conditions["incident_energy"].to(self._map.dtype)
        energies = (normals.to(self._map.dtype) @ self._map).abs() * incident[:, None] * 1e-3
        energies[energies < 0.5] = 0.0
        is_bad = conditions["incident_energy"] > self._family.largest_good_energy
        energies[is_bad] = self._family.bad_energy
        return DrawnTile(energies, {"clipped": (energies > 50).sum(dim=1)})


@dataclass
class _LinearFamily(Family):
    tile: int = TILE
    parts_per_group: int | str | None = None
    tiles_until_power_cut: int = 10**9
    largest_good_energy: float = 1e9
    bad_energy: float = float("nan")

    def require_describable(self, *_: object) -> None: ...

    def require_statistics(self, *_: object) -> None: ...

    def stages(self, *_: object) -> tuple[Stage, ...]:
        return ()

    def build_sampler(self, *_: object, dtype: torch.dtype, device: torch.device) -> Sampler:
        assert device.type == "cpu"
        return _LinearSampler(self, dtype)


def _generator(**options: float) -> Generator:
    statistics = ShowerStatistics(
        100, 0, (1.0,) * 3, (9.0,) * 3, 0.02, {"incident_energy": (1e4, 1e5)}
    )
    return Generator(
        _LinearFamily(**options), "none", GEOMETRY, statistics, 0.5, "made_up", "", "native",
        ("incident_energy",), {}, fingerprint="abc",
    )  # fmt: skip


def _draw(
    out: Path, request: SampleRequest, generator: Generator | None = None, *, num_threads: int = 1
) -> Drawn:
    return draw_to_file(generator or _generator(), request, out, num_threads=num_threads)


def _content(path: Path) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    with open_paths([path], geometry=None) as source:
        showers = source.read(0, source.num_showers)
        return showers.energies, showers.conditions["incident_energy"]


def _assert_equal(first: Path, second: Path) -> None:
    for one, other in zip(_content(first), _content(second), strict=True):
        assert np.array_equal(one, other)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(num_showers=st.integers(1, 40), count=st.integers(1, 6), seed=st.integers(0, 2**40))
def test_any_shards_merge_to_the_whole(
    tmp_path: Path, num_showers: int, count: int, seed: int
) -> None:
    """S2: also more shards than showers, some of them empty, given in any order."""
    whole = tmp_path / "whole.h5"
    drawn = draw_to_file(
        _generator(), SampleRequest(num_showers, ENERGIES, seed=seed), whole, is_forced=True
    )  # fmt: skip
    shards = []
    for index in range(count):
        path = tmp_path / f"{count}-{index}.h5"
        request = SampleRequest(num_showers, ENERGIES, seed=seed, shard=Shard(index, count))
        draw_to_file(_generator(), request, path, is_forced=True, num_threads=index + 1)
        shards.append(path)
    merged = tmp_path / "merged.h5"
    assert merge_shards(shards[::-1], merged, force=True) == num_showers
    _assert_equal(whole, merged)
    with h5py.File(merged) as file, h5py.File(whole) as other:
        assert file.attrs["repaired_clipped"] == drawn.repairs["clipped"]
        assert dict(file.attrs) == dict(other.attrs)


def test_shards_of_different_requests_do_not_merge(tmp_path: Path) -> None:
    for index, seed, count in ((0, 0, 2), (1, 1, 2), (2, 0, 3)):
        request = SampleRequest(9, ENERGIES, seed=seed, shard=Shard(index, count))
        _draw(tmp_path / f"{index}.h5", request)
    paths = [tmp_path / f"{index}.h5" for index in range(3)]
    with pytest.raises(CaloTrainError, match="request is"):
        merge_shards(paths[:2], tmp_path / "merged.h5")
    with pytest.raises(CaloTrainError, match="of 2 and of 3"):
        merge_shards([paths[0], paths[2]], tmp_path / "merged.h5")
    with pytest.raises(CaloTrainError, match="twice"):
        merge_shards([paths[0], paths[0]], tmp_path / "merged.h5")
    assert not (tmp_path / "merged.h5").exists()


def test_power_cut_loses_only_the_tile_in_hand(tmp_path: Path) -> None:
    """S3: a cut that no handler sees, then what was being written is found and removed."""
    request = SampleRequest(50, ENERGIES)
    out = tmp_path / "out.h5"
    with pytest.raises(KeyboardInterrupt):
        _draw(out, request, _generator(tiles_until_power_cut=3))
    assert not out.exists()
    for leftover in (
        tmp_path / ".out.h5.tiles/.000000003.npz.part-77",
        tmp_path / ".out.h5.part-77",
    ):
        leftover.write_bytes(b"torn")
    drawn = _draw(out, request)
    assert drawn.num_resumed == 3 * TILE
    _draw(tmp_path / "one go.h5", request)
    _assert_equal(out, tmp_path / "one go.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one go.h5", "out.h5"]


def test_tiles_of_another_request_are_not_taken(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    with pytest.raises(KeyboardInterrupt):
        _draw(out, SampleRequest(50, ENERGIES), _generator(tiles_until_power_cut=3))
    other = SampleRequest(50, ENERGIES, seed=1)
    assert _draw(out, other).num_resumed == 0
    _draw(tmp_path / "fresh.h5", other)
    _assert_equal(out, tmp_path / "fresh.h5")


def test_what_a_file_stores_is_what_its_showers_were_drawn_at(tmp_path: Path) -> None:
    """So the conditions of a sample, given back, give the sample again."""
    _draw(tmp_path / "law.h5", SampleRequest(20, ENERGIES, seed=3))
    stored = _content(tmp_path / "law.h5")[1].astype(np.float64)
    _draw(tmp_path / "given.h5", SampleRequest(20, given={"incident_energy": stored}, seed=3))
    _assert_equal(tmp_path / "law.h5", tmp_path / "given.h5")


@pytest.mark.parametrize("bad_energy", [float("nan"), float("inf"), -1.0])
def test_unphysical_energies_name_shower_and_condition(tmp_path: Path, bad_energy: float) -> None:
    """S8: they are neither written nor mended in silence."""
    energies = np.full(20, 50_000.0)
    energies[13] = 70_000.0
    request = SampleRequest(20, given={"incident_energy": energies}, seed=4)
    generator = _generator(largest_good_energy=60_000.0, bad_energy=bad_energy)
    with pytest.raises(DivergedError, match=r"(?s)1 showers.*shower 13 of seed 4.*70 GeV"):
        _draw(tmp_path / "out.h5", request, generator)
    assert not (tmp_path / "out.h5").exists()


def test_output_says_what_it_is(tmp_path: Path) -> None:
    _draw(tmp_path / "out.h5", SampleRequest(5, ENERGIES, seed=0))
    with h5py.File(tmp_path / "out.h5") as file:
        found = dict(file.attrs)
    assert found["seed"] == 0
    assert found["tile"] == TILE
    assert found["generator_fingerprint"] == "abc"
    assert found["trained_on"] == "made_up"
    assert found["dtype"] == "float64"
    assert not found["is_extrapolated"]


def test_energies_between_trained_values_are_drawn_with_a_warning_that_the_file_repeats(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As with CaloChallenge data set 1, which holds powers of two only."""
    generator = _generator()
    values = {"incident_energy": (1e4, 3e4, 1e5)}
    generator = replace(
        generator, statistics=replace(generator.statistics, condition_values=values)
    )
    trained = {"incident_energy": Spectrum(1e4, 3e4, values=(1e4, 3e4))}
    with caplog.at_level(logging.WARNING, "calo_train"):
        drawn = _draw(tmp_path / "trained.h5", SampleRequest(5, trained), generator)
    assert (drawn.notes, caplog.text) == ((), "")
    with caplog.at_level(logging.WARNING, "calo_train"):
        drawn = _draw(tmp_path / "between.h5", SampleRequest(5, ENERGIES), generator)
    words = "the data hold 3: 10 GeV, 30 GeV, 100 GeV"
    assert words in caplog.text
    assert words in drawn.notes[0]
    with h5py.File(tmp_path / "between.h5") as between, h5py.File(tmp_path / "trained.h5") as file:
        assert between.attrs["notes"] == drawn.notes[0]
        assert between.attrs["is_interpolated"]
        assert not file.attrs["is_interpolated"]
        assert set(file["conditions/incident_energy"][:].tolist()) <= {1e4, 3e4}


def test_existing_output_is_kept_unless_forced(tmp_path: Path) -> None:
    """S10."""
    out = tmp_path / "out.h5"
    out.write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        _draw(out, SampleRequest(5, ENERGIES))
    assert out.read_text() == "precious"
    with pytest.raises(UsageError, match="folder"):
        _draw(tmp_path, SampleRequest(5, ENERGIES))


def test_one_process_draws_an_output(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    with owned_store(out, "one"), pytest.raises(MachineError, match="another process"):
        _draw(out, SampleRequest(5, ENERGIES))
    assert _draw(out, SampleRequest(5, ENERGIES)).num_showers == 5


def test_drawing_works_outside_the_main_thread(tmp_path: Path) -> None:
    """Where no signal handler can be set."""
    thread = threading.Thread(target=_draw, args=(tmp_path / "out.h5", SampleRequest(5, ENERGIES)))
    thread.start()
    thread.join()
    assert len(_content(tmp_path / "out.h5")[0]) == 5


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.integers(0, 9), share=st.sampled_from([0.0, 0.1, 1.0]), seed=st.integers(0, 999))
def test_stored_tiles_come_back_bit_for_bit(
    tmp_path: Path, rows: int, share: float, seed: int
) -> None:
    random = np.random.Generator(np.random.Philox(seed))
    energies = random.exponential(1.0, (rows, 7)) * (random.random((rows, 7)) < share)
    tile = Tile(12, 96, energies.astype(np.float32), {"b": 3, "a": 0})
    store = TileStore(tmp_path)
    store.save(tile)
    again = store.load(12)
    assert np.array_equal(again.energies, tile.energies)
    assert (again.first, again.repairs) == (96, {"a": 0, "b": 3})


def test_tiles_are_drawn_hardly_ahead_of_their_reader(tmp_path: Path) -> None:
    """So what is in memory does not grow with the request; what was begun comes to its end."""
    computing = Computing(torch.float64, torch.device("cpu"), num_threads=2)
    store = TileStore(tmp_path)
    drawing = Drawing(_generator(), SampleRequest(50 * TILE, ENERGIES), store, computing)
    tiles = draw_tiles(drawing, range(50))
    assert [next(tiles) for _ in range(3)] == [TILE] * 3
    tiles.close()
    assert {0, 1, 2} <= store.numbers() <= {0, 1, 2, 3, 4}


def test_any_number_of_threads_draws_the_same(tmp_path: Path) -> None:
    """S1: more threads than tiles, too."""
    request = SampleRequest(5 * TILE - 3, ENERGIES, seed=5)
    for num_threads in (1, 2, 9):
        _draw(tmp_path / f"{num_threads}.h5", request, num_threads=num_threads)
    _assert_equal(tmp_path / "1.h5", tmp_path / "2.h5")
    _assert_equal(tmp_path / "1.h5", tmp_path / "9.h5")


def test_errors_of_threads_arrive_whole(tmp_path: Path) -> None:
    request = SampleRequest(50, ENERGIES)
    generator = _generator(largest_good_energy=0.0)
    with pytest.raises(DivergedError, match="8 showers"):
        _draw(tmp_path / "out.h5", request, generator, num_threads=2)
    assert list(tmp_path.iterdir()) == []
