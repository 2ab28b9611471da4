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
_TRANSVERSE = ("layer_centroid_x", "layer_centroid_y", "layer_width_x", "layer_width_y")
_RADIAL = ("layer_centroid_r", "layer_width_r")


def high_features(table: ShowerTable, grid: Grid) -> FloatArray:
    """Give (n, features); 362 for data sets 2 and 3."""
    return np.stack([_feature(table, grid, *column) for column in high_columns(grid)], axis=1)


def high_columns(grid: Grid) -> list[tuple[str, int | None]]:
    """Give the features in order, as observable and layer."""
    layers = grid.geometry.layers
    every: list[int | None] = list(range(len(layers)))
    angular: list[int | None] = [
        index
        for index, layer in enumerate(layers)
        if not layer.is_polar or layer.axes[_angle(grid)].num_cells > 1
    ]
    blocks: list[tuple[str, list[int | None]]] = [
        ("incident_energy", [None]),
        ("layer_energy", every),
        *((name, angular) for name in _TRANSVERSE),
        ("visible_energy", [None]),
        ("layer_sparsity", every),
        *((name, every) for name in (_RADIAL if grid.is_polar else ())),
    ]
    return [(name, layer) for name, chosen in blocks for layer in chosen]


def _feature(table: ShowerTable, grid: Grid, name: str, layer: int | None) -> FloatArray:
    if name == "incident_energy":
        return np.asarray(np.log10(table.incident_energy))
    if name in ("layer_energy", "visible_energy"):
        return np.asarray(np.log10(table.column(name, layer) + _SMALL))
    if name == "layer_sparsity":  # from the counts: the table keeps shares in float32
        assert layer is not None
        return 1.0 - table.column("layer_hits", layer) / grid.geometry.layers[layer].num_voxels
    return table.column(name, layer) / _LENGTH


def _angle(grid: Grid) -> int:
    return 1 if grid.geometry.layers[0].axes[0].name == "r" else 0
