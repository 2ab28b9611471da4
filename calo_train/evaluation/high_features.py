"""The high-level features of the CaloChallenge's classifier and of FPD and KPD (2410.21611).

log10 of the incident energy; log10 of layer energies; centroids and widths along eta and phi of
layers that tell them, over 100; log10 of the visible energy; sparsity; centroids and widths in r,
over 100. Layers are in order inside each block. On other detectors eta and phi are the two
transverse axes, and there is no r.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from calo_train.evaluation.deposits import FloatArray, Grid
    from calo_train.evaluation.table import ShowerTable

_SMALL = 1e-8  # MeV, of empty layers
_LENGTH = 100.0  # mm


def high_features(table: ShowerTable, grid: Grid) -> FloatArray:
    """Give (n, features); 362 for data sets 2 and 3."""
    layers = grid.geometry.layers
    every = range(len(layers))
    angular = [
        index
        for index in every
        if not layers[index].is_polar or layers[index].axes[_angle(grid)].num_cells > 1
    ]
    columns = [np.log10(table.incident_energy)]
    columns += [np.log10(table.column("layer_energy", index) + _SMALL) for index in every]
    for name in ("layer_centroid_x", "layer_centroid_y", "layer_width_x", "layer_width_y"):
        columns += [table.column(name, index) / _LENGTH for index in angular]
    columns.append(np.log10(table.column("visible_energy") + _SMALL))
    columns += [
        1.0 - table.column("layer_hits", index) / layers[index].num_voxels for index in every
    ]
    for name in ("layer_centroid_r", "layer_width_r") if grid.is_polar else ():
        columns += [table.column(name, index) / _LENGTH for index in every]
    return np.stack(columns, axis=1)


def _angle(grid: Grid) -> int:
    return 1 if grid.geometry.layers[0].axes[0].name == "r" else 0
