"""E10: memory is a few blocks and a table with a row a shower, whatever the size of a file."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import detectors
import judged
import pytest

from calo_train.evaluation.deposits import Grid
from calo_train.evaluation.shower_keys import keys_of
from calo_train.evaluation.shower_set import ShowerSet
from calo_train.evaluation.spectrum import spectrum_edges, voxel_range
from calo_train.evaluation.table import measure
from calo_train.geometry import Geometry, Layer

BLOCK = 64
FEW, MANY = 12, 40  # blocks; few are as many as all threads may hold


@dataclass(frozen=True, eq=False)
class LongFile(judged.Memory):
    """One block of showers again and again, without holding more than one."""

    num_blocks: int = 1

    @property
    def num_showers(self):
        return BLOCK * self.num_blocks

    def blocks(self):
        for _ in range(self.num_blocks):
            yield self.showers.rows(slice(None))


def fine_detector() -> Geometry:
    """Two layers of 50 x 50 cells, so that a shower is much larger than its row of a table."""
    axes = (detectors.axis("x", 50, -50, 50), detectors.axis("y", 50, -50, 50))
    return Geometry("fine", tuple(Layer(axes, 5.0 * index, 5.0) for index in range(2)))


def read(showers: ShowerSet) -> None:
    edges = spectrum_edges(voxel_range(showers, 0.01), 0.01)
    measure(showers, Grid.of(showers.geometry), threshold=0.01, spectrum=edges)


@pytest.mark.parametrize("work", [read, lambda showers: keys_of(showers, 0.01)])
def test_peak_memory_does_not_grow_with_the_file(work):
    block = detectors.make_showers(fine_detector(), BLOCK)
    peaks = []
    for num_blocks in (FEW, FEW, MANY):  # the first also compiles and imports
        showers = ShowerSet("long", LongFile(block, num_blocks=num_blocks))  # type: ignore[arg-type]
        tracemalloc.start()
        work(showers)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 0.15 * (MANY - FEW) * block.energies.nbytes
