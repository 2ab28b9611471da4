"""Sums over the voxels of each layer, from which the observables of a shower follow.

One sweep over a block gives energies, first and second moments of the coordinates, hits, the two
brightest voxels and the products that cosines need. All sums are float64: second central moments
are differences of large numbers. A compiled sweep does it where the machine can compile; numpy
does it layer by layer elsewhere.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.layer_kernel import CompiledSums
    from calo_train.geometry import Geometry

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
Energies = npt.NDArray[np.float32]

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, eq=False)
class LayerSums:
    """Sums of thresholded energies over layers, (n, layers) each, and over depth.

    `first` and `second` are sum x E and sum x^2 E of each coordinate; `squares` is sum E^2 and
    `products` sum E E' with the same voxel of the layer before, 0 where its grid differs;
    `lateral` (n, cells) adds layers of equal grid.
    """

    names: tuple[str, ...]
    energy: FloatArray
    first: tuple[FloatArray, ...]
    second: tuple[FloatArray, ...]
    hits: FloatArray
    brightest: FloatArray
    second_brightest: FloatArray
    squares: FloatArray
    products: FloatArray
    lateral: FloatArray

    @classmethod
    def of_fields(
        cls, names: tuple[str, ...], fields: Sequence[FloatArray], lateral: FloatArray
    ) -> LayerSums:
        """Name the fields in the order in which a sweep writes them."""
        count = len(names)
        moments = fields[1 : 1 + 2 * count]
        hits, brightest, second, squares, products = fields[1 + 2 * count :]
        return cls(
            names, fields[0], tuple(moments[0::2]), tuple(moments[1::2]), hits, brightest, second,
            squares, products, lateral,
        )  # fmt: skip


def layer_sums(plan: LayerPlan, energies: Energies, threshold: float) -> LayerSums:
    """Sum energies (n, voxels), finite and not negative; those below the threshold count as 0."""
    compiled = _compiled(len(plan.names))
    if compiled is None:
        return naive_sums(plan, energies, threshold)
    return compiled.sums(plan, energies, threshold)


def naive_sums(plan: LayerPlan, energies: Energies, threshold: float) -> LayerSums:
    """Do the same in numpy, layer by layer."""
    lateral = np.zeros((len(energies), plan.num_cells))
    previous: FloatArray = np.empty((len(energies), 0))
    columns = []
    for index, piece in enumerate(plan.geometry.layer_slices):
        kept = energies[:, piece].astype(np.float64)
        kept[energies[:, piece] < np.float32(threshold)] = 0
        lateral[:, plan.cell_of_voxel[piece]] += kept
        columns.append(
            [
                kept.sum(axis=1),
                *_moments(kept, plan.coordinates[piece]),
                np.count_nonzero(kept, axis=1).astype(np.float64),
                *_brightest(kept),
                (kept**2).sum(axis=1),
                (kept * previous).sum(axis=1)
                if plan.is_like_previous[index]
                else np.zeros(len(kept)),
            ]
        )
        previous = kept
    fields = [np.stack(field, axis=1) for field in zip(*columns, strict=True)]
    return LayerSums.of_fields(plan.names, fields, lateral)


def _moments(kept: FloatArray, coordinates: FloatArray) -> list[FloatArray]:
    return [kept @ values**power for values in coordinates.T for power in (1, 2)]


def _brightest(kept: FloatArray) -> tuple[FloatArray, FloatArray]:
    ordered = np.sort(kept, axis=1)
    second = ordered[:, -2] if kept.shape[1] > 1 else np.zeros(len(kept))
    return ordered[:, -1], second


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


@cache
def _compiled(num_coordinates: int) -> CompiledSums | None:
    from calo_train.evaluation.layer_kernel import CompiledSums

    try:
        return CompiledSums(num_coordinates)
    except MachineError as error:
        _log.info("observables are summed in numpy: %s", error.what)
        return None
