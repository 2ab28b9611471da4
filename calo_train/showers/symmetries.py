"""Symmetries of a detector as permutations of its voxels, for training on mirror images.

Where flips, an exchange of axes or a turn leave the law of showers unchanged, every image of a
shower is as likely as the shower itself. The data set says which hold; nothing is guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calo_train.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calo_train.geometry import Geometry, Layer

IndexArray = npt.NDArray[np.int64]
_KNOWN = "flip_AXIS, swap_AXIS_AXIS, turn_AXIS (periodic axes)"


def symmetry_images(geometry: Geometry, names: Sequence[str]) -> IndexArray:
    """Give all combinations of the named symmetries, (images, voxels), the identity first.

    `energies[:, images[i]]` is image i. Raises UsageError for a name that the geometry's edges do
    not allow.
    """
    identity = np.arange(geometry.num_voxels)
    steps = [_permutation(geometry, name) for name in names]
    found = {identity.tobytes(): identity}
    frontier = [identity]
    while frontier:
        reached = [image[step] for image in frontier for step in steps]
        frontier = [
            image for image in reached if found.setdefault(image.tobytes(), image) is image
        ]
    return np.stack(list(found.values()))


def _permutation(geometry: Geometry, name: str) -> IndexArray:
    pieces = []
    for layer, piece in zip(geometry.layers, geometry.layer_slices, strict=True):
        cells = np.arange(piece.start, piece.stop).reshape(layer.shape)
        pieces.append(_image(layer, cells, name).ravel())
    return np.concatenate(pieces)


def _image(layer: Layer, cells: IndexArray, name: str) -> IndexArray:
    names = [axis.name for axis in layer.axes]
    kind, _, rest = name.partition("_")
    if rest in names:
        position = names.index(rest)
        axis = layer.axes[position]
        if kind == "flip" and _is_mirrored(axis.edges):
            return np.flip(cells, axis=position)
        if kind == "turn" and axis.is_periodic:
            return np.roll(cells, 1, axis=position)
    both = (f"{names[0]}{names[1]}", f"{names[0]}_{names[1]}")
    if kind == "swap" and rest in both and _is_square(layer):
        return cells.T
    raise UsageError(
        f"'{name}' is not a symmetry of these layers: axes {names[0]}, {names[1]}, {layer.shape}",
        where="dataset.symmetries",
        do=f"use {_KNOWN} where the edges allow it, or leave the list empty",
    )


def _is_mirrored(edges: Sequence[float]) -> bool:
    values = np.asarray(edges)
    steps = np.diff(values)
    return bool(np.allclose(steps, steps[::-1]))


def _is_square(layer: Layer) -> bool:
    first, second = layer.axes
    return first.num_cells == second.num_cells and np.allclose(first.edges, second.edges)
