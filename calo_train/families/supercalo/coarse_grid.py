"""Coarse voxels of a detector: which voxels each joins, which are its neighbours, where it lies.

A coarse voxel joins so many cells along each of the two axes and so many layers (2308.11700;
there 1 r x 2 alpha x 5 layers, or 3 r x 4 alpha x 1 layer). Axes beyond a layer's grid are called
by their names, the layers `z`. Pure index arithmetic; knows no energies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calo_train.geometry import Axis, Geometry, Regrouping

LAYERS = "z"  # the name of the direction along the shower
_WHERE = "model.coarse"

IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class CoarseGrid:
    """Coarse voxels in the order of the coarse geometry: layer, first axis, second axis.

    Neighbours are listed as in the paper for polar layers (alpha, r): one cell down and up along
    the second axis, the depth and the first axis; periodic axes wrap. `position` marks the place
    along the second axis, the first and the depth, except along periodic axes, where no place is
    special; there the law of showers is the same.
    """

    fine: Geometry
    coarse: Geometry
    voxels: IndexArray  # (coarse, fine in one): fine voxels by layer, first axis, second axis
    neighbours: IndexArray  # (coarse, 6): coarse voxels; their number where there is none
    position: npt.NDArray[np.float32]  # (coarse, one-hots)
    layers_joined: int

    @property
    def num_voxels(self) -> int:
        """Coarse voxels of a shower."""
        return len(self.voxels)

    @property
    def num_fine(self) -> int:
        """Fine voxels of a coarse one."""
        return int(self.voxels.shape[1])

    @property
    def num_layers(self) -> int:
        return self.coarse.num_layers

    @classmethod
    def of(cls, geometry: Geometry, factors: Mapping[str, int]) -> CoarseGrid:
        """Join cells and layers of a regular geometry by factors that divide it."""
        coarse, regrouping = coarsened(geometry, factors)
        order = np.argsort(regrouping.target, kind="stable")
        return cls(
            fine=geometry,
            coarse=coarse,
            voxels=order.reshape(coarse.num_voxels, -1),
            neighbours=_neighbours(coarse),
            position=_positions(coarse),
            layers_joined=geometry.num_layers // coarse.num_layers,
        )


def require_factors(factors: Mapping[str, int]) -> None:
    """Raise UsageError unless each axis, and the layers, are joined by one or more."""
    for name, factor in factors.items():
        if factor < 1:
            raise UsageError(
                f"{factor} cells of {name} cannot be joined",
                where=_WHERE,
                do="give numbers from 1, such as {r: 1, alpha: 2, z: 5}; z counts layers",
            )


def require_divisible(geometry: Geometry, factors: Mapping[str, int]) -> None:
    """Raise UsageError, naming the divisors, unless every factor divides its axis."""
    counts = {axis.name: axis.num_cells for axis in geometry.layers[0].axes}
    counts[LAYERS] = geometry.num_layers
    for name, factor in factors.items():
        if name not in counts:
            raise UsageError(
                f"no axis '{name}' in {geometry.describe()}",
                where=_WHERE,
                do=f"name its axes, and z for layers, such as model.coarse={{{_example(counts)}}}",
            )
        if counts[name] % factor:
            words = "layers" if name == LAYERS else f"cells of {name}"
            raise UsageError(
                f"{factor} does not divide the {counts[name]} {words} of {geometry.name}",
                where=f"{_WHERE}: {name}: {factor}",
                do=f"join {_divisor_words(counts[name])}",
            )
    if all(factor == 1 for factor in factors.values()):
        raise UsageError(
            "a coarse voxel holds one voxel: there is nothing to refine",
            where=_WHERE,
            do=f"join cells or layers of {geometry.describe()}, or train model=l2lflows",
        )


def _example(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {2 if count % 2 == 0 else 1}" for name, count in counts.items())


def coarsened(geometry: Geometry, factors: Mapping[str, int]) -> tuple[Geometry, Regrouping]:
    """Give the coarse geometry and the map of voxels to coarse voxels."""
    across = {name: factor for name, factor in factors.items() if name != LAYERS}
    return geometry.coarsen(num_layers=factors.get(LAYERS, 1), **across)


def _divisor_words(count: int) -> str:
    divisors = [str(number) for number in range(1, count + 1) if count % number == 0]
    return divisors[0] if len(divisors) == 1 else f"{', '.join(divisors[:-1])} or {divisors[-1]}"


def _neighbours(coarse: Geometry) -> IndexArray:
    first, second = coarse.layers[0].axes
    shape = (coarse.num_layers, first.num_cells, second.num_cells)
    numbers = np.arange(coarse.num_voxels).reshape(shape)
    directions = ((2, second.is_periodic), (0, False), (1, first.is_periodic))
    columns = [
        _shifted(numbers, dimension, step, is_periodic=is_periodic).ravel()
        for dimension, is_periodic in directions
        for step in (-1, 1)
    ]
    return np.stack(columns, axis=1)


def _shifted(numbers: IndexArray, dimension: int, step: int, *, is_periodic: bool) -> IndexArray:
    """Give for each cell the number of the one `step` further; the count of all beyond an edge."""
    shifted = np.roll(numbers, -step, axis=dimension)
    if not is_periodic:
        edge = -1 if step > 0 else 0
        np.moveaxis(shifted, dimension, 0)[edge] = numbers.size
    return shifted


def _positions(coarse: Geometry) -> npt.NDArray[np.float32]:
    first, second = coarse.layers[0].axes
    shape = (coarse.num_layers, first.num_cells, second.num_cells)
    layer, along_first, along_second = np.indices(shape).reshape(3, -1)
    places = [*_place(second, along_second), *_place(first, along_first)]
    places.append(np.eye(coarse.num_layers)[layer])
    return np.concatenate(places, axis=1).astype(np.float32)


def _place(axis: Axis, index: IndexArray) -> list[npt.NDArray[np.float64]]:
    return [] if axis.is_periodic else [np.eye(axis.num_cells)[index]]
