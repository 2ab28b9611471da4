"""The value that flows through the house: voxel energies, conditions and their geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calo_train.geometry import Geometry

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Showers:
    """Showers of one detector.

    `energies` is (n, voxels) float32 in MeV, in the geometry's voxel order; `conditions` maps each
    name (`incident_energy` in MeV, `polar_angle` and `azimuth` in rad) to (n,) float32.
    """

    energies: FloatArray
    conditions: Mapping[str, FloatArray]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.energies.ndim != 2 or self.energies.shape[1] != self.geometry.num_voxels:
            raise DataError(
                f"energies have the shape {self.energies.shape}, expected "
                f"(n, {self.geometry.num_voxels})",
                where=self.geometry.describe(),
                do="give one row a shower, in the geometry's voxel order",
            )
        for name, values in self.conditions.items():
            if values.shape != (len(self.energies),):
                raise DataError(
                    f"condition '{name}' has the shape {values.shape}, expected "
                    f"({len(self.energies)},)",
                    where=self.geometry.describe(),
                    do="give one value a shower",
                )

    def __len__(self) -> int:
        return len(self.energies)

    def rows(self, index: slice | npt.NDArray[np.int64]) -> Showers:
        """Select showers by slice or by row numbers."""
        conditions = {name: values[index] for name, values in self.conditions.items()}
        return Showers(self.energies[index], conditions, self.geometry)


def concatenate(pieces: Sequence[Showers]) -> Showers:
    """Join showers of one geometry in order; at least one piece is needed."""
    first = pieces[0]
    conditions = {
        name: np.concatenate([piece.conditions[name] for piece in pieces])
        for name in first.conditions
    }
    return Showers(
        np.concatenate([piece.energies for piece in pieces]), conditions, first.geometry
    )
