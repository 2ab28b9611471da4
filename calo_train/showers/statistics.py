"""What preprocessing needs to know of the training data, computed in one pass over it.

A `ShowerStatistics` belongs to the generator: it is stored in its yaml and read back for sampling.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from calo_train.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from calo_train.geometry import Geometry, Regrouping
    from calo_train.showers.showers import Showers


@dataclass(frozen=True)
class ShowerStatistics:
    """Extremes and means of a set of showers; energies in MeV."""

    num_showers: int
    num_empty: int  # showers without any energy; they are kept
    voxel_max: tuple[float, ...]  # largest voxel energy of each layer, before the threshold
    layer_energy_max: tuple[float, ...]  # largest energy of each layer
    visible_fraction: float  # mean of visible over incident energy
    condition_range: dict[str, tuple[float, float]]  # the trained domain
    group_max: dict[str, float] = field(default_factory=dict)  # largest sum, by kind of group

    def to_mapping(self) -> dict[str, Any]:
        """Give plain numbers and lists for yaml."""
        mapping = asdict(self)
        mapping["voxel_max"] = list(self.voxel_max)
        mapping["layer_energy_max"] = list(self.layer_energy_max)
        mapping["condition_range"] = {
            name: list(ends) for name, ends in self.condition_range.items()
        }
        return mapping

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, where: str) -> ShowerStatistics:
        """Read back what `to_mapping` gave; anything else is a DataError."""
        try:
            return cls(
                num_showers=int(mapping["num_showers"]),
                num_empty=int(mapping["num_empty"]),
                voxel_max=tuple(float(value) for value in mapping["voxel_max"]),
                layer_energy_max=tuple(float(value) for value in mapping["layer_energy_max"]),
                visible_fraction=float(mapping["visible_fraction"]),
                condition_range={
                    str(name): (float(low), float(high))
                    for name, (low, high) in mapping["condition_range"].items()
                },
                group_max={
                    str(name): float(value) for name, value in mapping.get("group_max", {}).items()
                },
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"statistics of the training data are damaged: {type(error).__name__} {error}",
                where=where,
                do="train the generator again, or fetch an intact copy",
            ) from error


def gather_statistics(
    blocks: Iterable[Showers],
    geometry: Geometry,
    groups: Mapping[str, Regrouping] | None = None,
) -> ShowerStatistics:
    """Gather the statistics of checked showers in one pass over blocks of them.

    `groups` names kinds of groups of voxels whose largest sum is wanted beside those of layers.
    """
    num_showers = num_empty = 0
    voxel_max = np.zeros(geometry.num_layers)
    layer_max = np.zeros(geometry.num_layers)
    visible_sum = incident_sum = 0.0
    ranges: dict[str, tuple[float, float]] = {}
    group_max = dict.fromkeys(groups or {}, 0.0)
    starts = [piece.start for piece in geometry.layer_slices]
    for showers in blocks:
        energies = showers.energies
        layer_energies = np.add.reduceat(energies, starts, axis=1, dtype=np.float64)
        visible = layer_energies.sum(axis=1)
        num_showers += len(showers)
        num_empty += int(np.count_nonzero(visible == 0))
        voxel_max = np.maximum(voxel_max, np.maximum.reduceat(energies.max(axis=0), starts))
        layer_max = np.maximum(layer_max, layer_energies.max(axis=0))
        for name, regrouping in (groups or {}).items():
            group_max[name] = max(group_max[name], float(regrouping.apply(energies).max()))
        visible_sum += float(visible.sum())
        incident_sum += float(showers.conditions["incident_energy"].sum(dtype=np.float64))
        for name, values in showers.conditions.items():
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = (min(low, float(values.min())), max(high, float(values.max())))
    return ShowerStatistics(
        num_showers=num_showers,
        num_empty=num_empty,
        voxel_max=tuple(voxel_max.tolist()),
        layer_energy_max=tuple(layer_max.tolist()),
        visible_fraction=visible_sum / incident_sum if incident_sum > 0 else 0.0,
        condition_range=ranges,
        group_max=group_max,
    )
