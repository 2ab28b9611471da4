"""One sweep over the voxels of a block: the sums from which the observables of showers follow.

It gives energies of layers, first and second moments of the coordinates, hits, the two brightest
voxels and the products that cosines need, and the cell spectrum. All sums are float64: second
central moments are differences of large numbers. It is compiled where the machine can do that;
numpy does it layer by layer elsewhere.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from calo_train.errors import MachineError

if TYPE_CHECKING:
    import numpy.typing as npt

    from calo_train.evaluation.layer_kernel import CompiledSweep
    from calo_train.evaluation.layer_plan import Energies, FloatArray, IndexArray, LayerPlan
    from calo_train.evaluation.spectrum import SpectrumBins

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep over showers gives.

    `counts` (n, columns) are those of SpectrumBins, `totals` (voxels,) sums over showers. Those
    not `is_valid` (n,) hold NaN, infinite or negative energies, and count as empty here.
    """

    layers: LayerSums
    counts: IndexArray
    totals: FloatArray
    is_valid: npt.NDArray[np.bool_]


def sweep(plan: LayerPlan, energies: Energies, threshold: float, bins: SpectrumBins) -> Sweep:
    """Sweep energies (n, voxels); below the threshold they count as 0."""
    compiled = _compiled()
    if compiled is None or bins.table is None:
        return naive_sweep(plan, energies, threshold, bins)
    return compiled(plan, energies, threshold, bins.table, bins.num_columns)


def naive_sweep(
    plan: LayerPlan, energies: Energies, threshold: float, bins: SpectrumBins
) -> Sweep:
    """Do the same in numpy, layer by layer."""
    is_energy = np.greater_equal(energies, 0) & np.less(energies, np.inf)
    is_valid: npt.NDArray[np.bool_] = np.all(is_energy, axis=1)
    is_kept = (energies >= np.float32(threshold)) & is_valid[:, None]
    kept = np.where(is_kept, energies, np.float32(0))
    lateral = np.zeros((len(kept), plan.num_cells))
    previous: FloatArray = np.empty((len(kept), 0))
    columns = []
    for index, piece in enumerate(plan.geometry.layer_slices):
        layer = kept[:, piece].astype(np.float64)
        lateral[:, plan.cell_of_voxel[piece]] += layer
        is_like = plan.is_like_previous[index]
        columns.append(_layer_fields(layer, previous if is_like else 0 * layer, plan, piece))
        previous = layer
    fields = [np.stack(field, axis=1) for field in zip(*columns, strict=True)]
    first, second = 1 + len(plan.names), 1 + 2 * len(plan.names)
    moments = tuple(fields[1:first]), tuple(fields[first:second])
    hits, brightest, runner_up, squares, products = fields[second:]
    layers = LayerSums(
        plan.names, fields[0], *moments, hits, brightest, runner_up, squares, products, lateral
    )
    return Sweep(layers, bins.count(kept), kept.sum(axis=0, dtype=np.float64), is_valid)


def _layer_fields(
    layer: FloatArray, previous: FloatArray, plan: LayerPlan, piece: slice
) -> list[FloatArray]:
    """Give the fields of LayerSums for one layer's energies (n, voxels), (n,) each."""
    coordinates = plan.coordinates[piece].T
    return [
        layer.sum(axis=1),
        *(layer @ values for values in coordinates),
        *(layer @ values**2 for values in coordinates),
        np.count_nonzero(layer, axis=1).astype(np.float64),
        *_brightest(layer),
        (layer**2).sum(axis=1),
        (layer * previous).sum(axis=1),
    ]


def _brightest(kept: FloatArray) -> tuple[FloatArray, FloatArray]:
    ordered = np.sort(kept, axis=1)
    second = ordered[:, -2] if kept.shape[1] > 1 else np.zeros(len(kept))
    return ordered[:, -1], second


@cache
def _compiled() -> CompiledSweep | None:
    from calo_train.evaluation.layer_kernel import CompiledSweep

    try:
        return CompiledSweep()
    except MachineError as error:
        _log.info("observables are summed in numpy: %s", error.what)
        return None
