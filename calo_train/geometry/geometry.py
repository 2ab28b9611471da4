"""The Geometry value: layers (possibly ragged), axes with edges, voxel order.

Voxels are ordered layer by layer, inside a layer by its first axis, then by its second. Everything
that a model or a metric needs to know of a detector is derived from here; lengths mm, angles rad.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from calo_train.errors import DataError, GeometryMismatch
from calo_train.geometry.regroup import Regrouping, regroup

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]

_EDGE_RTOL = 1e-5  # edges travel through float32 attributes and decimal text


@dataclass(frozen=True)
class Axis:
    """One axis of a layer: rising edges in mm (lengths) or rad (angles)."""

    name: str
    edges: tuple[float, ...]
    unit: str = "mm"
    is_periodic: bool = False

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or any(not low < high for low, high in pairwise(self.edges)):
            raise DataError(
                f"axis '{self.name}' needs at least two rising edges, got {list(self.edges)[:6]}",
                where="geometry",
                do="list the cell borders from low to high",
            )
        if self.unit not in ("mm", "rad"):
            raise DataError(
                f"axis '{self.name}' has the unit '{self.unit}'",
                where="geometry",
                do="give edges in mm or rad",
            )

    @property
    def num_cells(self) -> int:
        return len(self.edges) - 1

    @cached_property
    def centres(self) -> FloatArray:
        """Middle of each cell, (cells,)."""
        edges = np.asarray(self.edges)
        centres: FloatArray = (edges[:-1] + edges[1:]) / 2
        return centres

    def difference(self, other: Axis) -> str | None:
        """Describe the first difference to another axis, or None when edges and kind are equal."""
        if (
            self.name != other.name
            or self.is_periodic != other.is_periodic
            or self.unit != other.unit
        ):
            return f"axis {_axis_words(self)} against {_axis_words(other)}"
        if self.num_cells != other.num_cells:
            return f"axis {self.name}: {self.num_cells} cells against {other.num_cells}"
        extent = max(abs(self.edges[0]), abs(self.edges[-1]), self.edges[-1] - self.edges[0])
        for index, (mine, theirs) in enumerate(zip(self.edges, other.edges, strict=True)):
            if abs(mine - theirs) > _EDGE_RTOL * extent:
                return f"axis {self.name}, edge {index}: {mine:g} against {theirs:g} {self.unit}"
        return None


@dataclass(frozen=True)
class Layer:
    """One readout layer: a grid over two axes, its front face and thickness in mm."""

    axes: tuple[Axis, Axis]
    depth: float
    thickness: float

    @property
    def shape(self) -> tuple[int, int]:
        return (self.axes[0].num_cells, self.axes[1].num_cells)

    @property
    def num_voxels(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def is_polar(self) -> bool:
        return "r" in (self.axes[0].name, self.axes[1].name)


@dataclass(frozen=True, eq=False)
class Geometry:
    """A detector. Two geometries are equal when their edges are; the name does not count."""

    name: str
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise DataError(
                "a geometry needs at least one layer", where=self.name, do="add layers"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Geometry) and self.difference(other) is None

    def __hash__(self) -> int:
        return hash(self.layer_shapes)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @cached_property
    def num_voxels(self) -> int:
        return sum(layer.num_voxels for layer in self.layers)

    @cached_property
    def layer_shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple(layer.shape for layer in self.layers)

    @property
    def is_regular(self) -> bool:
        """Whether all layers share one grid, so that showers reshape to (n, layers, a, b)."""
        first = self.layers[0]
        return all(
            a.difference(b) is None
            for layer in self.layers[1:]
            for a, b in zip(layer.axes, first.axes, strict=True)
        )

    @cached_property
    def layer_slices(self) -> tuple[slice, ...]:
        """For each layer the slice of its voxels."""
        ends = np.cumsum([layer.num_voxels for layer in self.layers]).tolist()
        return tuple(
            slice(end - layer.num_voxels, end)
            for end, layer in zip(ends, self.layers, strict=True)
        )

    @cached_property
    def layer_of_voxel(self) -> IndexArray:
        """Layer index of each voxel, (voxels,)."""
        return np.repeat(np.arange(self.num_layers), [layer.num_voxels for layer in self.layers])

    def axis_values(self, axis_position: int) -> FloatArray:
        """Centre of each voxel along its layer's first (0) or second (1) axis, (voxels,)."""
        values = []
        for layer in self.layers:
            grids = np.meshgrid(layer.axes[0].centres, layer.axes[1].centres, indexing="ij")
            values.append(grids[axis_position].ravel())
        return np.concatenate(values)

    @cached_property
    def cartesian_centres(self) -> tuple[FloatArray, FloatArray]:
        """Transverse centres (x, y) of all voxels in mm; r cos, r sin for polar cells."""
        first, second = self.axis_values(0), self.axis_values(1)
        names = (self.layers[0].axes[0].name, self.layers[0].axes[1].name)
        if "r" not in names:
            return first, second
        radius, angle = (first, second) if names[0] == "r" else (second, first)
        return radius * np.cos(angle), radius * np.sin(angle)

    @cached_property
    def layer_centres(self) -> FloatArray:
        """Middle of each layer along the shower in mm, (layers,)."""
        return np.asarray([layer.depth + layer.thickness / 2 for layer in self.layers])

    def difference(self, other: Geometry) -> str | None:
        """Describe the first difference (layer, axis, edge) to another geometry, or None."""
        if self.num_layers != other.num_layers:
            return f"{self.num_layers} layers against {other.num_layers}"
        for index, (mine, theirs) in enumerate(zip(self.layers, other.layers, strict=True)):
            for own_axis, other_axis in zip(mine.axes, theirs.axes, strict=True):
                found = own_axis.difference(other_axis)
                if found is not None:
                    return f"layer {index}, {found}"
        return None

    def describe(self) -> str:
        """Say in one line what the detector looks like."""
        if self.is_regular:
            first, second = self.layers[0].axes
            cells = f"{first.num_cells} {first.name} x {second.num_cells} {second.name}"
            grid = f"{self.num_layers} layers of {cells}"
        else:
            grid = f"{self.num_layers} layers of " + ", ".join(
                f"{a}x{b}" for a, b in self.layer_shapes
            )
        return f"{self.name}: {grid} ({self.num_voxels} voxels)"

    def require_equal(self, other: Geometry, *, where: str, do: str) -> None:
        """Raise GeometryMismatch, with both described, unless `other` is this detector."""
        found = self.difference(other)
        if found is not None:
            raise GeometryMismatch(
                f"another detector: expected {self.describe()}; found {other.describe()}; "
                f"first difference: {found}",
                where=where,
                do=do,
            )

    def crop(self, **ranges: tuple[int, int]) -> tuple[Geometry, Regrouping]:
        """Keep cells [start, stop) of named axes in every layer, e.g. `crop(x=(10, 20))`."""
        return self._regrouped(f"{self.name}_cropped", crop=ranges)

    def coarsen(self, *, num_layers: int = 1, **factors: int) -> tuple[Geometry, Regrouping]:
        """Join `factors` neighbouring cells of named axes and `num_layers` layers."""
        groups = [
            (start, min(start + num_layers, self.num_layers))
            for start in range(0, self.num_layers, num_layers)
        ]
        return self._regrouped(f"{self.name}_coarse", factors=factors, groups=groups)

    def segment(self, boundaries: tuple[int, ...]) -> tuple[Geometry, Regrouping]:
        """Join layers [b_i, b_i+1) of equal grid into one, e.g. `segment((0, 10, 30))`."""
        return self._regrouped(f"{self.name}_segments", groups=list(pairwise(boundaries)))

    def _regrouped(
        self,
        name: str,
        *,
        crop: dict[str, tuple[int, int]] | None = None,
        factors: dict[str, int] | None = None,
        groups: list[tuple[int, int]] | None = None,
    ) -> tuple[Geometry, Regrouping]:
        layers, regrouping = regroup(self, crop=crop or {}, factors=factors or {}, groups=groups)
        return Geometry(name, layers), regrouping


def _axis_words(axis: Axis) -> str:
    return f"{axis.name} ({axis.unit}{', periodic' if axis.is_periodic else ''})"
