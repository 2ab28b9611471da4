"""What preprocessing needs to know of the training data, computed in one pass over it.

A `ShowerStatistics` belongs to the generator: it is stored in its yaml and read back for sampling.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from calo_train.geometry import Geometry, Regrouping
    from calo_train.showers.showers import FloatArray, Showers

_Values = npt.NDArray[np.float32] | None  # None: too many to be listed
_MOST_VALUES = 64  # of a condition that is called discrete
_ROWS_A_VALUE = 4  # at least, on average; continuous conditions hardly ever repeat a float32


@dataclass(frozen=True)
class ShowerStatistics:
    """Extremes and means of a set of showers; energies in MeV."""

    num_showers: int
    num_empty: int  # showers without any energy; they are kept
    voxel_max: tuple[float, ...]  # largest voxel energy of each layer, before the threshold
    layer_energy_max: tuple[float, ...]  # largest energy of each layer
    visible_fraction: float  # mean of visible over incident energy
    condition_range: dict[str, tuple[float, float]]  # the trained domain
    # Rising values of conditions that take few, as in CaloChallenge data set 1; others are absent.
    condition_values: dict[str, tuple[float, ...]] = field(default_factory=dict)
    visible_fraction_max: float = 0.0  # largest visible over incident energy of a shower
    group_max: dict[str, float] = field(default_factory=dict)  # largest sum, by kind of group

    def to_mapping(self) -> dict[str, Any]:
        """Give plain numbers and lists for yaml."""
        mapping = asdict(self)
        mapping["voxel_max"] = list(self.voxel_max)
        mapping["layer_energy_max"] = list(self.layer_energy_max)
        mapping["condition_range"] = {
            name: list(ends) for name, ends in self.condition_range.items()
        }
        mapping["condition_values"] = {
            name: list(values) for name, values in self.condition_values.items()
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
                condition_values={  # absent from generators of earlier versions
                    str(name): tuple(float(value) for value in values)
                    for name, values in mapping.get("condition_values", {}).items()
                },
                visible_fraction_max=float(mapping.get("visible_fraction_max", 0.0)),  # likewise
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
    visible_sum = incident_sum = fraction_max = 0.0
    ranges: dict[str, tuple[float, float]] = {}
    found: dict[str, _Values] = {}
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
        incident = showers.conditions["incident_energy"].astype(np.float64)
        incident_sum += float(incident.sum())
        fractions = np.divide(visible, incident, out=np.zeros_like(visible), where=incident > 0)
        fraction_max = max(fraction_max, float(fractions.max()))
        for name, values in showers.conditions.items():
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = (min(low, float(values.min())), max(high, float(values.max())))
            found[name] = _joined(found.get(name, np.empty(0, np.float32)), values)
    return ShowerStatistics(
        num_showers=num_showers,
        num_empty=num_empty,
        voxel_max=tuple(voxel_max.tolist()),
        layer_energy_max=tuple(layer_max.tolist()),
        visible_fraction=visible_sum / incident_sum if incident_sum > 0 else 0.0,
        visible_fraction_max=fraction_max,
        condition_range=ranges,
        condition_values={
            name: tuple(values.tolist())
            for name, values in found.items()
            if values is not None and _ROWS_A_VALUE * len(values) <= num_showers
        },
        group_max=group_max,
    )


def _joined(known: _Values, values: FloatArray) -> _Values:
    """Add the values of a block to those seen so far; None once they are too many to be a list."""
    if known is None:
        return None
    joined: FloatArray = np.union1d(known, values)
    return joined if len(joined) <= _MOST_VALUES else None
