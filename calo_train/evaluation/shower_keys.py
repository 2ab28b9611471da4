"""A shower as a 64-bit number of its content, so that equal showers are found across files.

The bits of all voxels are summed under fixed random weights modulo 2^64: equal showers have equal
keys, others differ but for one pair in 2^64. Thresholded energies count, so that files with and
without soft hits agree; conditions do not. Showers of few hits can be equal by chance and have no
key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.deposits import apply_threshold
from calo_train.progress import Progress

if TYPE_CHECKING:
    from calo_train.evaluation.deposits import Energies
    from calo_train.evaluation.shower_set import ShowerSet

KeyArray = npt.NDArray[np.uint64]

# Energies rounded to 10 bits of mantissa still leave 60 bits in so many hits.
MIN_HITS = 6


@dataclass(frozen=True, eq=False)
class ShowerKeys:
    """Keys of the showers of a set that have enough hits to be told apart."""

    keys: KeyArray
    num_showers: int  # with those that have no key

    @property
    def num_repeated(self) -> int:
        """How many showers repeat an earlier one of the set."""
        return len(self.keys) - len(np.unique(self.keys))

    def num_in(self, other: ShowerKeys) -> int:
        """Count showers whose content is also in another set."""
        return int(np.count_nonzero(np.isin(self.keys, other.keys)))


@lru_cache(maxsize=16)
def keys_of(showers: ShowerSet, threshold: float) -> ShowerKeys:
    """Read a set, once however often it is asked, and give the keys of its showers."""
    weights = np.random.Philox(key=0).random_raw(showers.geometry.num_voxels) | np.uint64(1)
    pieces = []
    with Progress(f"contents of {showers.label}", len(showers), unit="showers") as progress:
        for block in showers.blocks():
            pieces.append(_block_keys(apply_threshold(block.energies, threshold), weights))
            progress.advance(len(block))
    return ShowerKeys(np.concatenate(pieces), len(showers))


def _block_keys(energies: Energies, weights: KeyArray) -> KeyArray:
    telling = np.count_nonzero(energies, axis=1) >= MIN_HITS
    bits = np.ascontiguousarray(energies[telling]).view(np.uint32)
    keys: KeyArray = bits.astype(np.uint64) @ weights
    return keys
