"""Showers for an event display: hits at their true positions, in pairs of equal incident energy.

Positions are those of the Geometry in mm: x and y of the cell's centre, z of the layer's middle,
for cartesian and polar cells alike. A cell that is a whole ring stands at its angle's middle.
"""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from calo_train.evaluation.deposits import apply_threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.evaluation.deposits import FloatArray
    from calo_train.evaluation.results import Evaluation
    from calo_train.geometry import Geometry

NUM_SHOWERS = 6  # of each set, spread over the incident energies
_MAX_HITS = 36_000  # of all showers together: 0.8 MB in the page
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DisplayedShower:
    """The brightest hits of a shower, brightest last; energies in MeV, positions (hits, 3) mm."""

    incident_energy: float
    visible_energy: float
    num_hits: int  # before the faintest are left out
    positions: npt.NDArray[np.float32]
    energies: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DisplayedSet:
    """Showers of one set; those of equal index in two sets have about equal incident energies."""

    label: str
    showers: tuple[DisplayedShower, ...]


@dataclass(frozen=True, eq=False)
class EventDisplay:
    """The reference's showers first, then those of each sample."""

    geometry: Geometry
    sets: tuple[DisplayedSet, ...]

    @property
    def energy_range(self) -> tuple[float, float]:
        """Smallest and largest shown deposit in MeV; (1, 1) where nothing is hit."""
        hits = [shower.energies for entry in self.sets for shower in entry.showers]
        energies = np.concatenate(hits)
        return (float(energies.min()), float(energies.max())) if len(energies) else (1.0, 1.0)


@dataclass(frozen=True)
class Hull:
    """Where a detector begins and ends, in mm; a cylinder around z where it is polar."""

    x: tuple[float, float]
    y: tuple[float, float]
    z: tuple[float, float]
    names: tuple[str, str]  # of x and y
    is_polar: bool


def event_display(evaluation: Evaluation) -> EventDisplay:
    """Choose showers by incident energy alone, from the table, and read their hits."""
    geometry = evaluation.reference.geometry
    chosen = paired_showers(evaluation, NUM_SHOWERS)
    most = _MAX_HITS // sum(len(entry.energies) for entry in chosen)
    places = voxel_positions(geometry).astype(np.float32)
    return EventDisplay(
        geometry,
        tuple(
            DisplayedSet(
                entry.label,
                tuple(
                    _displayed(shower, energy, places, most)
                    for shower, energy in zip(
                        entry.energies, entry.incident_energy.tolist(), strict=True
                    )
                ),
            )
            for entry in chosen
        ),
    )


@dataclass(frozen=True, eq=False)
class ChosenShowers:
    """Thresholded showers (k, voxels) of one set in MeV, with their incident energies (k,)."""

    label: str
    energies: npt.NDArray[np.float32]
    incident_energy: FloatArray


def paired_showers(evaluation: Evaluation, number: int) -> list[ChosenShowers]:
    """Give showers of the reference, then of each sample at about the same energies."""
    tables = [evaluation.reference_table, *(result.table for result in evaluation.samples)]
    sets = [evaluation.reference, *(result.showers for result in evaluation.samples)]
    rows = [spread_rows(tables[0].incident_energy, min(number, *map(len, tables)))]
    wanted = tables[0].incident_energy[rows[0]]
    rows += [nearest_rows(table.incident_energy, wanted) for table in tables[1:]]
    threshold = evaluation.settings.threshold
    return [
        ChosenShowers(
            showers.label,
            apply_threshold(showers.pick(table.positions[chosen]).energies, threshold),
            table.incident_energy[chosen],
        )
        for showers, table, chosen in zip(sets, tables, rows, strict=True)
    ]


def spread_rows(incident_energy: FloatArray, number: int) -> IndexArray:
    """Give rows whose energies lie at evenly spaced quantiles, the lowest first."""
    order = np.argsort(incident_energy, kind="stable")
    places = (np.arange(number) + 0.5) / number * len(order)
    return order[places.astype(np.int64)]


def nearest_rows(incident_energy: FloatArray, wanted: FloatArray) -> IndexArray:
    """Give for each wanted energy the row that comes closest to it, none twice."""
    distances = np.abs(np.log(incident_energy / wanted[:, None]))
    rows = []
    for distance in distances:
        rows.append(int(np.argmin(distance)))
        distances[:, rows[-1]] = np.inf
    return np.asarray(rows, dtype=np.int64)


def voxel_positions(geometry: Geometry) -> FloatArray:
    """Give x, y, z of every voxel in mm, (voxels, 3)."""
    depth = geometry.layer_centres[geometry.layer_of_voxel]
    return np.stack([*geometry.cartesian_centres, depth], axis=1)


def page_data(display: EventDisplay) -> dict[str, Any]:
    """Give what the script of the page reads: hits are float32 x, y, z, MeV in base64."""
    return {
        "hull": asdict(hull_of(display.geometry)),
        "cell": _cell_size(display.geometry),
        "sets": [
            {"label": entry.label, "showers": [_shower_data(shower) for shower in entry.showers]}
            for entry in display.sets
        ],
    }


def _displayed(
    energies: npt.NDArray[np.float32], incident: float, places: npt.NDArray[np.float32], most: int
) -> DisplayedShower:
    hits = np.flatnonzero(energies)
    brightest = hits[np.argsort(energies[hits], kind="stable")][-most:]
    visible = float(energies.sum(dtype=np.float64))
    return DisplayedShower(incident, visible, len(hits), places[brightest], energies[brightest])


def hull_of(geometry: Geometry) -> Hull:
    """Give the box around all cells, as cartesian positions see it."""
    z = (
        min(layer.depth for layer in geometry.layers),
        max(layer.depth + layer.thickness for layer in geometry.layers),
    )
    first, second = geometry.layers[0].axes
    if geometry.layers[0].is_polar:
        edges = [
            axis.edges for layer in geometry.layers for axis in layer.axes if axis.name == "r"
        ]
        radius = max(edge[-1] for edge in edges)
        return Hull((-radius, radius), (-radius, radius), z, ("x", "y"), is_polar=True)
    x, y = (_span(geometry, position) for position in (0, 1))
    return Hull(x, y, z, (first.name, second.name), is_polar=False)


def _span(geometry: Geometry, position: int) -> tuple[float, float]:
    edges = [layer.axes[position].edges for layer in geometry.layers]
    return min(edge[0] for edge in edges), max(edge[-1] for edge in edges)


def _cell_size(geometry: Geometry) -> float:
    """Give the narrowest cell's width in mm; angles do not count."""
    widths = [
        float(np.diff(axis.edges).min())
        for layer in geometry.layers
        for axis in layer.axes
        if axis.unit == "mm"
    ]
    return min(widths)


def _shower_data(shower: DisplayedShower) -> dict[str, Any]:
    columns: Sequence[npt.NDArray[np.float32]] = (shower.positions, shower.energies[:, None])
    hits = np.concatenate(columns, axis=1).astype("<f4")
    return {
        "incident": shower.incident_energy,
        "visible": shower.visible_energy,
        "num_hits": shower.num_hits,
        "hits": base64.b64encode(hits.tobytes()).decode("ascii"),
    }
