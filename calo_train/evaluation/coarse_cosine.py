"""Cosines between neighbouring layers inside coarse voxels (SuperCalo, 2308.11700).

A coarse voxel joins cells along both axes and a number of layers. With e_l the energies of its
fine voxels in layer l, each pair of layers l, l+1 inside it has

    rho = e_l . e_l+1 / (|e_l| |e_l+1|),

undefined, and counted apart, where either is empty. The histogram is over coarse voxels, pairs and
showers. Coarse voxels of a single layer hold no pair: there each one is paired with the next in
depth, which shows what a model loses that fills every coarse voxel by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from calo_train.evaluation.deposits import Energies, FloatArray, IndexArray
    from calo_train.evaluation.spectrum import Counts
    from calo_train.geometry import Geometry
    from calo_train.geometry.regroup import Regrouping

COSINE_BINS = 50
EDGES = np.linspace(0.0, 1.0, COSINE_BINS + 1)
_DEPTH = "z"
_ROUNDING = 1e-6  # products and squares are float32 sums: parallel vectors can give 1 + this


@dataclass(frozen=True)
class CoarseCells:
    """How many fine cells a coarse voxel joins along each axis, and how many layers."""

    factors: tuple[tuple[str, int], ...]
    num_layers: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `r=1,alpha=2,z=5`; z counts layers. Raises UsageError."""
        found: dict[str, int] = {}
        for word in text.split(","):
            name, _, number = word.strip().partition("=")
            if not name or not number.isdecimal() or int(number) < 1 or name in found:
                raise UsageError(
                    f"'{text}' is no choice of coarse voxels",
                    where=f"--coarse {text}",
                    do="give cells along each axis and layers, such as r=1,alpha=2,z=5",
                )
            found[name] = int(number)
        num_layers = found.pop(_DEPTH, 1)
        return cls(tuple(found.items()), num_layers)

    @property
    def text(self) -> str:
        """Write it as it is given: `r=1,alpha=2,z=5`."""
        return ",".join(f"{name}={number}" for name, number in self._sizes)

    @property
    def words(self) -> str:
        """Say it for people: `1 r x 2 alpha x 5 layers`."""
        depth = "1 layer" if self.num_layers == 1 else f"{self.num_layers} layers"
        return " x ".join([*(f"{number} {name}" for name, number in self.factors), depth])

    @property
    def title(self) -> str:
        """Title it for tables and figures."""
        place = "of neighbouring coarse voxels" if self.num_layers == 1 else "inside"
        return f"cosine between layers {place} ({self.words})"

    @property
    def name(self) -> str:
        """Name it in metrics.json: `layer_cosine_in_r1_alpha2_z5`."""
        return "layer_cosine_in_" + "_".join(f"{name}{number}" for name, number in self._sizes)

    @property
    def _sizes(self) -> tuple[tuple[str, int], ...]:
        return (*self.factors, (_DEPTH, self.num_layers))


@dataclass(frozen=True, eq=False)
class CoarseCosine:
    """A choice of coarse voxels on a detector.

    `sums` adds fine voxels up within each layer; `first` and `second` (pairs,) are the sums of
    neighbouring layers, and `previous` (fine voxels,) leads to the same voxel one layer before.
    """

    cells: CoarseCells
    sums: Regrouping
    first: IndexArray
    second: IndexArray
    previous: IndexArray

    @classmethod
    def of(cls, cells: CoarseCells, geometry: Geometry) -> Self:
        """Lay out the pairs; UsageError where axes do not divide, DataError on ragged groups."""
        factors = dict(cells.factors)
        _require_axes(geometry, factors)
        flat, sums = geometry.coarsen(num_layers=1, **factors)
        coarse_of = geometry.coarsen(num_layers=cells.num_layers, **factors)[1].target
        pairs, previous = [], np.full(geometry.num_voxels, -1, dtype=np.int64)
        for layer in range(1, geometry.num_layers):
            before, here = (geometry.layer_slices[index] for index in (layer - 1, layer))
            if geometry.layers[layer].axes != geometry.layers[layer - 1].axes:
                continue
            is_inside = bool((coarse_of[before] == coarse_of[here]).all())
            if not is_inside and cells.num_layers > 1:
                continue
            previous[here] = np.arange(before.start, before.stop)
            pairs.append(np.stack([_voxels(flat, index) for index in (layer - 1, layer)]))
        if not pairs:
            raise UsageError(
                f"no two neighbouring layers share coarse voxels of {cells.words}",
                where=geometry.describe(),
                do="join layers of one grid",
            )
        first, second = np.concatenate(pairs, axis=1)
        return cls(cells, sums, first, second, previous)

    def values(self, energies: Energies) -> FloatArray:
        """Give rho (n, pairs) of thresholded energies (n, voxels); NaN where undefined."""
        # A voxel without a predecessor takes itself times 0.
        earlier = np.where(self.previous >= 0, energies[:, self.previous], np.float32(0))
        squares = self.sums.apply(energies * energies).astype(np.float64)
        products = self.sums.apply(energies * earlier).astype(np.float64)[:, self.second]
        norms = np.sqrt(squares[:, self.first]) * np.sqrt(squares[:, self.second])
        with np.errstate(invalid="ignore", divide="ignore"):
            found: FloatArray = np.where(norms > 0, products / norms, np.nan)
        return np.where(found > 1 - _ROUNDING, 1.0, found)

    def counts(self, energies: Energies) -> Counts:
        """Histogram rho of each shower, (n, bins + 1), the last for undefined ones."""
        values = self.values(energies)
        # The last bin is closed.
        bins = np.minimum(np.nan_to_num(values) * COSINE_BINS, COSINE_BINS - 1).astype(np.int64)
        bins[np.isnan(values)] = COSINE_BINS
        rows = np.arange(len(energies))[:, None] * (COSINE_BINS + 1)
        size = len(energies) * (COSINE_BINS + 1)
        found: npt.NDArray[np.int64] = np.bincount((rows + bins).ravel(), minlength=size)
        return found.reshape(len(energies), COSINE_BINS + 1).astype(np.int32)


def _voxels(geometry: Geometry, layer: int) -> IndexArray:
    piece = geometry.layer_slices[layer]
    return np.arange(piece.start, piece.stop)


def _require_axes(geometry: Geometry, factors: Mapping[str, int]) -> None:
    known = {axis.name for layer in geometry.layers for axis in layer.axes}
    for name in factors:
        if name not in known:
            raise UsageError(
                f"no axis '{name}' to join cells along",
                where=f"--coarse, {geometry.describe()}",
                do=f"name its axes {', '.join(sorted(known))}, and z for layers",
            )
