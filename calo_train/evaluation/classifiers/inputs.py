"""What a classifier sees of a shower, as a row of numbers.

- voxels (L2LFlows App. C): thresholded voxels over the reference's mean hit, 2 log10(E/GeV) - 3.
- low (2410.21611): log10 of the incident energy, thresholded voxels over it.
- low_normed: log10 of the incident energy, voxels over their layer's energy, log10 of layer
  energies. There voxels are NOT thresholded and layer energies are, as in the official script.
- high: centroids, widths, sparsities and energies (`high_features`).

All follow from the Geometry: on a detector that is not one of the challenge's, layers and axes
take the places of its layers and of eta and phi. MeV and mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.deposits import apply_threshold
from calo_train.evaluation.high_features import high_columns, high_features
from calo_train.evaluation.shower_set import ShowerSet
from calo_train.quantities import MEV_PER_GEV

if TYPE_CHECKING:
    from torch import Tensor

    from calo_train.evaluation.classifiers.protocol import InputKind
    from calo_train.evaluation.deposits import FloatArray, Grid, IndexArray
    from calo_train.evaluation.table import ShowerTable
    from calo_train.geometry import Geometry
    from calo_train.showers.showers import Showers

NO_LAYER = -1
VOXELS = "voxels"
INCIDENT = "incident_energy"


@dataclass(frozen=True)
class VoxelScale:
    """How voxels become inputs: the readout threshold and the reference's mean hit, both MeV."""

    threshold: float
    mean_hit: float

    @classmethod
    def of(cls, threshold: float, table: ShowerTable) -> VoxelScale:
        """Take the mean hit from the reference's table."""
        hits = float(table.column("num_hits").sum())
        mean = float(table.column("visible_energy").sum()) / hits if hits else 1.0
        return cls(threshold, mean)


@dataclass(frozen=True, eq=False)
class InputColumns:
    """What each input is of: an observable's name, and a layer or NO_LAYER."""

    observables: tuple[str, ...]
    layers: IndexArray


@dataclass(frozen=True, eq=False)
class Candidates:
    """The valid showers of a set as classifier inputs; rows are those of its table."""

    showers: ShowerSet
    table: ShowerTable
    grid: Grid
    scale: VoxelScale

    def inputs(self, kind: InputKind, rows: IndexArray) -> Tensor:
        """Give inputs (n, D) float32 of rising rows."""
        import torch

        if kind == "high":
            return torch.from_numpy(self._high[rows].astype(np.float32))
        filled = 0
        found = np.empty((len(rows), num_inputs(kind, self.grid)), dtype=np.float32)
        for block in self._chosen(rows).blocks():
            found[filled : filled + len(block)] = voxel_inputs(kind, block, self.scale)
            filled += len(block)
        return torch.from_numpy(found)

    def energies(self, rows: IndexArray) -> npt.NDArray[np.float32]:
        """Give thresholded energies (n, voxels) of rows in any order, MeV."""
        order = np.argsort(rows, kind="stable")
        gathered = self.showers.gather(self.table.positions[rows[order]]).energies
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return apply_threshold(gathered[back], self.scale.threshold)

    def _chosen(self, rows: IndexArray) -> ShowerSet:
        positions = self.table.positions[rows]
        inner = self.showers.rows
        source_rows = positions if inner is None else inner[positions]
        return ShowerSet(self.showers.label, self.showers.source, source_rows)

    @property
    def _high(self) -> FloatArray:
        return high_features(self.table, self.grid)


def voxel_inputs(kind: InputKind, showers: Showers, scale: VoxelScale) -> npt.NDArray[np.floating]:
    """Give inputs (n, D) of showers that are made of their voxels."""
    makers = {"voxels": _voxels, "low": _low, "low_normed": _low_normed}
    return makers[kind](showers, scale)


def num_inputs(kind: InputKind, grid: Grid) -> int:
    """Count the inputs of a kind on a detector."""
    return len(input_columns(kind, grid).observables)


def input_columns(kind: InputKind, grid: Grid) -> InputColumns:
    """Say what the inputs of a kind are of, in order."""
    if kind == "high":
        columns = high_columns(grid)
        layers = [NO_LAYER if layer is None else layer for _, layer in columns]
        return InputColumns(tuple(name for name, _ in columns), np.asarray(layers))
    voxels = [(VOXELS, layer) for layer in grid.geometry.layer_of_voxel.tolist()]
    energies = [("layer_energy", layer) for layer in range(grid.geometry.num_layers)]
    incident = [(INCIDENT, NO_LAYER)]
    found = {
        "voxels": voxels + incident,
        "low": incident + voxels,
        "low_normed": incident + voxels + energies,
    }[kind]
    return InputColumns(
        tuple(name for name, _ in found), np.asarray([int(layer) for _, layer in found])
    )


def _voxels(showers: Showers, scale: VoxelScale) -> npt.NDArray[np.floating]:
    inputs = np.empty((len(showers), showers.energies.shape[1] + 1), dtype=np.float32)
    kept = apply_threshold(showers.energies, scale.threshold)
    np.divide(kept, np.float32(scale.mean_hit), out=inputs[:, :-1])
    inputs[:, -1] = 2 * np.log10(_incident(showers) / MEV_PER_GEV) - 3
    return inputs


def _low(showers: Showers, scale: VoxelScale) -> npt.NDArray[np.floating]:
    incident = _incident(showers)[:, None]
    kept = apply_threshold(showers.energies, scale.threshold)
    return np.concatenate([np.log10(incident), kept / incident], axis=1)


def _low_normed(showers: Showers, scale: VoxelScale) -> npt.NDArray[np.floating]:
    energies = _layer_energies(
        apply_threshold(showers.energies, scale.threshold), showers.geometry
    )
    of_voxel = energies[:, showers.geometry.layer_of_voxel]
    return np.concatenate(
        [
            np.log10(_incident(showers)[:, None]),
            showers.energies / (of_voxel + 1e-16),
            np.log10(energies + 1e-8),
        ],
        axis=1,
    )


def _layer_energies(energies: npt.NDArray[np.float32], geometry: Geometry) -> FloatArray:
    starts = [piece.start for piece in geometry.layer_slices]
    sums: FloatArray = np.add.reduceat(energies, starts, axis=1, dtype=np.float64)
    return sums


def _incident(showers: Showers) -> FloatArray:
    return showers.conditions["incident_energy"].astype(np.float64)
