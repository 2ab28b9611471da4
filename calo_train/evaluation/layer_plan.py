"""What a sweep over voxels needs of a geometry: coordinates, shared lateral cells, and tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from calo_train.geometry import Geometry

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
Energies = npt.NDArray[np.float32]

NUM_WEIGHTS = 8  # of a lateral cell; whole vectors on every machine
NUM_LAYER_FIELDS = 5
# First voxel, number of voxels, first cell, voxels back to the same one in the layer before (0
# where its grid differs), and whether it is the same.
START, VOXELS, CELLS, BACK, IS_LIKE_PREVIOUS = range(NUM_LAYER_FIELDS)


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """What the sums need of a geometry.

    `coordinates` holds (voxels, k) centres in the axes' units, named by `names`: x, y, and r where
    layers are polar. Layers of equal grid share lateral cells.
    """

    geometry: Geometry
    names: tuple[str, ...]
    coordinates: FloatArray
    cell_of_voxel: IndexArray
    num_cells: int

    @classmethod
    def of(cls, geometry: Geometry) -> LayerPlan:
        """Lay out a geometry's coordinates and lateral cells."""
        names, coordinates = _coordinates(geometry)
        first_cells: dict[object, int] = {}
        cells, num_cells = [], 0
        for layer in geometry.layers:
            if layer.axes not in first_cells:
                first_cells[layer.axes] = num_cells
                num_cells += layer.num_voxels
            cells.append(first_cells[layer.axes] + np.arange(layer.num_voxels))
        return cls(geometry, names, coordinates, np.concatenate(cells), num_cells)

    @cached_property
    def is_like_previous(self) -> npt.NDArray[np.bool_]:
        """Whether each layer has the grid of the one before, (layers,); never the first."""
        layers = self.geometry.layers
        return np.asarray(
            [
                index > 0 and layer.axes == layers[index - 1].axes
                for index, layer in enumerate(layers)
            ]
        )

    @cached_property
    def sizes(self) -> FloatArray:
        """Voxels of each layer, (layers,)."""
        return np.asarray([layer.num_voxels for layer in self.geometry.layers], dtype=np.float64)

    @cached_property
    def voxel_of_cell(self) -> IndexArray:
        """The first voxel of each lateral cell, (cells,)."""
        return np.unique(self.cell_of_voxel, return_index=True)[1]

    @cached_property
    def cell_weights(self) -> FloatArray:
        """1, the coordinates and their squares of each lateral cell, then zeros: (cells, 8)."""
        coordinates, count = self.coordinates[self.voxel_of_cell], len(self.names)
        weights = np.zeros((self.num_cells, NUM_WEIGHTS))
        weights[:, 0] = 1
        weights[:, 1 : 1 + count] = coordinates
        weights[:, 1 + count : 1 + 2 * count] = coordinates**2
        return weights

    @cached_property
    def layer_table(self) -> IndexArray:
        """What the compiled sweep needs of each layer, (layers, NUM_LAYER_FIELDS)."""
        rows = []
        for piece, is_like in zip(self.geometry.layer_slices, self.is_like_previous, strict=True):
            size = piece.stop - piece.start
            back = size if is_like else 0
            rows.append([piece.start, size, self.cell_of_voxel[piece.start], back, is_like])
        return np.asarray(rows, dtype=np.int64)


def _coordinates(geometry: Geometry) -> tuple[tuple[str, ...], FloatArray]:
    x, y = geometry.cartesian_centres
    if not geometry.layers[0].is_polar:
        return ("x", "y"), np.stack([x, y], axis=1)
    radial = [layer.axes[0].name != "r" for layer in geometry.layers]  # position of r
    radius, x, y = np.hypot(x, y), x.copy(), y.copy()
    for layer, piece, position in zip(geometry.layers, geometry.layer_slices, radial, strict=True):
        if layer.axes[1 - position].num_cells == 1:
            # A whole ring lies around the axis, not at the middle of its angular cell.
            x[piece] = y[piece] = 0
    return ("x", "y", "r"), np.stack([x, y, radius], axis=1)
