"""Observables by loops over voxels, straight from their definitions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from calo_train.geometry import Geometry

NAN = math.nan


def measure(
    shower: np.ndarray, incident: float, geometry: Geometry, threshold: float
) -> dict[str, Any]:
    """Give all observables of a detector for one shower (voxels,)."""
    kept = [float(e) if e >= np.float32(threshold) else 0.0 for e in shower]
    layers = split(kept, geometry)
    places = [voxel_centres(layer) for layer in geometry.layers]
    found = _of_shower(layers, places, incident)
    for name in places[0][0]:
        for layer, centres in zip(layers, places, strict=True):
            values = [centre[name] for centre in centres]
            found.setdefault(f"layer_centroid_{name}", []).append(mean(layer, values))
            found.setdefault(f"layer_width_{name}", []).append(math.sqrt(spread(layer, values)))
            if name != "r":
                hits = sum(e > 0 for e in layer)
                width = math.sqrt(spread(layer, values) * hits / (hits - 1)) if hits > 1 else NAN
                found.setdefault(f"layer_spread_{name}", []).append(width)
    for layer in layers:
        total, ordered = sum(layer), [*sorted(layer, reverse=True), 0.0]
        found.setdefault("layer_brightest_share", []).append(over(ordered[0], total))
        found.setdefault("layer_second_share", []).append(over(ordered[1], total))
    if geometry.num_layers > 1:
        found |= _between(layers, places, geometry)
    return found


def _of_shower(layers: Any, places: Any, incident: float) -> dict[str, Any]:
    kept = [e for layer in layers for e in layer]
    sums = [sum(layer) for layer in layers]
    total, num_layers = sum(sums), len(layers)
    found: dict[str, Any] = {
        "visible_energy": total,
        "visible_fraction": total / incident,
        "num_hits": float(sum(e > 0 for e in kept)),
        "brightest_share": max(kept) / total if total else 0.0,
        "layer_energy": sums,
        "layer_fraction": [energy / total if total else 0.0 for energy in sums],
        "layer_hits": [float(sum(e > 0 for e in layer)) for layer in layers],
        "layer_sparsity": [sum(e == 0 for e in layer) / len(layer) for layer in layers],
    }
    depth = [index for index, layer in enumerate(layers) for _ in layer]
    coordinates = {"z": depth} | {
        name: [centre[name] for centres in places for centre in centres] for name in "xy"
    }
    for name, values in coordinates.items():
        found[f"centre_of_gravity_{name}"] = mean(kept, values)
        found[f"second_moment_{name}"] = spread(kept, values)
    ends = [0, num_layers // 3, 2 * num_layers // 3, num_layers]
    for third, name in enumerate(("first_third", "second_third", "last_third")):
        found[name] = sum(sums[ends[third] : ends[third + 1]]) / total if total else 0.0
    return found


def _between(layers: Any, places: Any, geometry: Geometry) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for index in range(len(layers) - 1):
        pair = layers[index], layers[index + 1]
        grids = places[index], places[index + 1]
        norms = [math.sqrt(sum(e * e for e in layer)) for layer in pair]
        is_equal = geometry.layers[index].axes == geometry.layers[index + 1].axes
        product = sum(a * b for a, b in zip(*pair, strict=True)) if is_equal else NAN
        found.setdefault("layer_cosine", []).append(over(product, norms[0] * norms[1]))
        steps = []
        for name in "xy":
            means = [
                mean(layer, [centre[name] for centre in grid]) if sum(layer) else NAN
                for layer, grid in zip(pair, grids, strict=True)
            ]
            steps.append(means[1] - means[0])
            found.setdefault(f"layer_distance_{name}", []).append(steps[-1])
        found.setdefault("layer_distance", []).append(math.hypot(*steps))
    return found


def split(shower: Any, geometry: Geometry) -> list[Any]:
    """Cut a shower into layers."""
    found, start = [], 0
    for layer in geometry.layers:
        found.append(shower[start : start + layer.num_voxels])
        start += layer.num_voxels
    return found


def voxel_centres(layer: Any) -> list[dict[str, float]]:
    """Give the transverse coordinates of a layer's voxels in order."""
    found = []
    is_whole_ring = layer.axes[0].num_cells == 1
    for first in layer.axes[0].centres:
        for second in layer.axes[1].centres:
            if layer.axes[1].name != "r":
                found.append({"x": float(first), "y": float(second)})
                continue
            radius = 0.0 if is_whole_ring else float(second)
            x, y = radius * math.cos(first), radius * math.sin(first)
            found.append({"x": x, "y": y, "r": float(second)})
    return found


def mean(weights: Any, values: Any) -> float:
    """Weighted mean; 0 without weight."""
    total = sum(weights)
    return sum(w * v for w, v in zip(weights, values, strict=True)) / total if total else 0.0


def spread(weights: Any, values: Any) -> float:
    """Weighted variance about the mean."""
    middle = mean(weights, values)
    return mean(weights, [(v - middle) ** 2 for v in values])


def over(numerator: float, denominator: float) -> float:
    """Divide; NaN by zero."""
    return numerator / denominator if denominator else NAN
