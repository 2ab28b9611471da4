"""Geometries from yaml data and from binning files; hostile ones are refused at once."""

from __future__ import annotations

import json
import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calo_train.errors import DataError
from calo_train.geometry import (
    Axis,
    Geometry,
    Layer,
    geometry_from_mapping,
    geometry_from_xml,
)
from calo_train.geometry.sources import geometry_to_mapping

if TYPE_CHECKING:
    from pathlib import Path

GRID = {
    "name": "prototype",
    "axes": [
        {"name": "alpha", "start": -1.0, "stop": 1.0, "cells": 4, "unit": "rad", "periodic": True},
        {"name": "r", "edges": [0, 1, 5]},
    ],
    "depth": 3.0,
    "layer_thicknesses": [2.0, 4.0],
}

rising = st.lists(
    st.floats(-100, 100, allow_nan=False, width=32), min_size=2, max_size=5, unique=True
).map(lambda edges: tuple(sorted(edges)))
axes = st.builds(
    Axis, st.sampled_from("xyr"), rising, st.sampled_from(["mm", "rad"]), st.booleans()
)
layers = st.builds(Layer, st.tuples(axes, axes), st.floats(0, 100), st.floats(0.1, 10))
geometries = st.builds(
    Geometry, st.just("any"), st.lists(layers, min_size=1, max_size=4).map(tuple)
)


@given(geometry=geometries)
def test_mapping_and_back_is_the_same_detector(geometry: Geometry) -> None:
    """Through JSON text, as files and generators carry it; bit by bit."""
    found = geometry_from_mapping(json.loads(json.dumps(geometry_to_mapping(geometry))))
    assert found.layers == geometry.layers
    assert found.name == geometry.name


@given(
    axes=st.tuples(axes, axes), thicknesses=st.lists(st.floats(0.1, 10), min_size=1, max_size=6)
)
def test_equal_layers_that_follow_each_other_are_written_once(
    axes: tuple[Axis, Axis], thicknesses: list[float]
) -> None:
    ends = list(accumulate(thicknesses, initial=3.0))
    stack = Geometry(
        "stack", tuple(Layer(axes, *end) for end in zip(ends, thicknesses, strict=False))
    )
    mapping = geometry_to_mapping(stack)
    assert "layers" not in mapping
    assert geometry_from_mapping(mapping).layers == stack.layers


def test_one_grid_for_all_layers() -> None:
    geometry = geometry_from_mapping(GRID)
    first, second = geometry.layers[0].axes
    assert first.edges == (-1.0, -0.5, 0.0, 0.5, 1.0)
    assert (first.unit, first.is_periodic) == ("rad", True)
    assert (second.edges, second.unit, second.is_periodic) == ((0.0, 1.0, 5.0), "mm", False)
    assert [(layer.depth, layer.thickness) for layer in geometry.layers] == [(3, 2), (5, 4)]


def changed(**values: Any) -> dict[str, Any]:
    return {**GRID, **values}


@pytest.mark.parametrize(
    "mapping",
    [
        {"name": "empty"},
        {key: value for key, value in GRID.items() if key != "name"},
        changed(axes=GRID["axes"][:1]),
        changed(axes=3),
        changed(layer_thicknesses=["thick"]),
        changed(layers=[{"axes": GRID["axes"]}]),
        changed(axes=[{"name": "x", "start": 0, "stop": 1}] * 2),
        changed(axes=[{"name": "x", "start": 0, "stop": 1, "cells": 0}] * 2),
        changed(axes=[{"name": "x", "start": 0, "stop": 1, "cells": 10**12}] * 2),
        changed(axes=[{"name": "x", "start": 0, "stop": 1, "cells": 4000}] * 2),
    ],
)
def test_what_is_no_geometry_is_refused(mapping: dict[str, Any]) -> None:
    """X6: absurd cell counts too, before they are laid out."""
    with pytest.raises(DataError) as caught:
        geometry_from_mapping(mapping, where="a.h5")
    assert caught.value.where == "a.h5"


BINNING = """<?xml version="1.0"?>
<Bins>
  <Bin pid="22" name="photon" etaMin="0" etaMax="130">
    <Layer id="0" r_edges="0,5,10,30" n_bin_alpha="1"/>
    <Layer id="1" r_edges="0" n_bin_alpha="1"/>
    <Layer id="2" r_edges="0,2,4" n_bin_alpha="10"/>
  </Bin>
  <Bin pid="211" name="pion"><Layer id="0" r_edges="0,1" n_bin_alpha="2"/></Bin>
</Bins>
"""


def binning(tmp_path: Path, text: str = BINNING) -> Path:
    path = tmp_path / "binning_dataset_1.xml"
    path.write_text(text)
    return path


def test_binning_file_of_the_challenge(tmp_path: Path) -> None:
    """Layers without voxels are left out; angles divide [-pi, pi] equally."""
    geometry = geometry_from_xml(binning(tmp_path), "photon", layer_thickness=2.0)
    assert geometry.layer_shapes == ((1, 3), (10, 2))
    alpha, r = geometry.layers[1].axes
    assert r.edges == (0.0, 2.0, 4.0)
    assert alpha.is_periodic
    assert alpha.edges[3] == pytest.approx(-math.pi + 3 * math.pi / 5)
    assert [layer.depth for layer in geometry.layers] == [0.0, 2.0]
    assert geometry_from_xml(binning(tmp_path), "pion").num_voxels == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><Bins/>', "document type"),
        ("<Bins>", "not XML"),
        (BINNING.replace('name="photon"', 'name="gamma"'), "gamma"),
        (BINNING.replace("0,2,4", "0,two"), "layer 2"),
        (BINNING.replace('n_bin_alpha="10"', ""), "layer 2"),
        (BINNING.replace('n_bin_alpha="10"', 'n_bin_alpha="0"'), "0 angular cells"),
        (BINNING.replace('n_bin_alpha="10"', 'n_bin_alpha="9999999999"'), "angular cells"),
        (BINNING + " " * (1 << 20), "1 MiB"),
    ],
)
def test_damaged_and_hostile_binning_files_are_refused(
    text: str, words: str, tmp_path: Path
) -> None:
    """X3: entities are never expanded."""
    with pytest.raises(DataError, match=words):
        geometry_from_xml(binning(tmp_path, text), "photon")
