"""What the fuzz suite feeds and how it is read: one target a door for files of strangers."""

from __future__ import annotations

import copy
import json
import string
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import detectors
import h5py
import numpy as np
import yaml

from calo_train.families.generator import load_generator
from calo_train.geometry.sources import geometry_from_xml
from calo_train.showers.layouts import create_showers, open_file
from calo_train.training.config import check_config
from calo_train.training.run_folder import RunFolder

if TYPE_CHECKING:
    import random

OLD_GENERATOR = Path(__file__).parents[1] / "families/generator_format_1"
# What breaks parsers: extremes, empties, other types, text that means something elsewhere.
_ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 1e308, -1e-308, float("nan"),
    float("inf"), "", " ", "nan", "../../etc/passwd", "/", "\x00", "\x1b[2J", "é" * 50, "0" * 400,
    [], {}, [[]], [None], {"_target_": "os.system"}, {"a": {"b": {"c": []}}}, [1] * 300, "1e999",
    "embedded:", "os.system", "calo_train.errors.UsageError", "${oc.env:HOME}", "???", "1MeV",
]  # fmt: skip
_ODD_KEYS = ["", "_target_", "axes", "layers", "name", "0", "é", "_partial_", "edges", "cells"]


class Target(ABC):
    """A door: how a mutated input is written, and the call that must read or refuse it."""

    name: ClassVar[str]

    def prepare(self, folder: Path) -> None:  # noqa: B027 - most need nothing
        """Write what inputs are made from."""

    @abstractmethod
    def write(self, chance: random.Random, folder: Path) -> Path:
        """Write one mutated input."""

    @abstractmethod
    def read(self, path: Path) -> None:
        """Read it as the commands do."""


class ShowerBytes(Target):
    """HDF5 showers of every layout, with bytes changed, cut out, put in or cut off."""

    name = "hdf5 bytes"

    def prepare(self, folder: Path) -> None:
        geometry = detectors.cartesian()
        showers = detectors.make_showers(geometry, 24)
        self._files = []
        for layout in ("native", "getting_high", "calochallenge", "showerdata"):
            path = folder / layout
            with create_showers(path, layout, geometry, attributes={}) as writer:
                writer.append(showers)
            self._files.append(path.read_bytes())

    def write(self, chance: random.Random, folder: Path) -> Path:
        path = folder / "mutated.h5"
        path.unlink(missing_ok=True)
        path.write_bytes(mutated_bytes(chance.choice(self._files), chance))
        return path

    def read(self, path: Path) -> None:
        read_showers(path)


class ShowerStructure(Target):
    """HDF5 showers whose arrays, attributes and links are not what a layout says."""

    name = "hdf5 structure"

    def write(self, chance: random.Random, folder: Path) -> Path:
        path = folder / "mutated.h5"
        path.unlink(missing_ok=True)
        with h5py.File(path, "w") as file:
            layout = chance.choice(("native", "getting_high", "calochallenge"))
            for key in {
                "native": ("energies", "conditions/incident_energy", "conditions/polar_angle"),
                "getting_high": ("30x30/energy", "30x30/layers"),
                "calochallenge": ("incident_energies", "showers"),
            }[layout]:
                if chance.random() < 0.95:
                    with suppress(ValueError, OSError, KeyError, TypeError):  # a link is there
                        _add_node(file, key, chance)
            if layout == "native":
                file.attrs["layout"] = "native"
                versions = (1, 1, 1, 1, 1, 1, 2, -1, "1", [1, 1])
                file.attrs["layout_version"] = chance.choice(versions)
                geometry = mutated_tree(_GRID, chance) if chance.random() < 0.4 else _GRID
                file.attrs["geometry"] = json.dumps(geometry, default=str)
            if chance.random() < 0.2:
                _set_odd_attribute(file, chance)
        return path

    def read(self, path: Path) -> None:
        read_showers(path)


class BinningXml(Target):
    """Binning files of the CaloChallenge."""

    name = "binning xml"
    _text = (
        '<?xml version="1.0"?>\n<Bins>\n  <Bin pid="22" name="photon" etaMin="0" etaMax="130">\n'
        '    <Layer id="0" r_edges="0,5,10,30" n_bin_alpha="1"/>\n'
        '    <Layer id="1" r_edges="0" n_bin_alpha="1"/>\n'
        '    <Layer id="2" r_edges="0,2,4" n_bin_alpha="10"/>\n  </Bin>\n'
        '  <Bin pid="211" name="pion"><Layer id="0" r_edges="0,1" n_bin_alpha="2"/></Bin>\n'
        "</Bins>\n"
    )

    def write(self, chance: random.Random, folder: Path) -> Path:
        path = folder / "binning.xml"
        if chance.random() < 0.5:
            path.write_bytes(mutated_bytes(self._text.encode(), chance))
        else:
            words = (
                "0",
                "-1",
                "1e400",
                "nan",
                "9" * 30,
                "",
                "0,0",
                "3,2,1",
                "<!DOCTYPE a>",
                "&a;",
            )
            text = self._text
            for _ in range(chance.randrange(1, 4)):
                old = chance.choice(('"0,5,10,30"', '"1"', '"10"', '"0"', "Layer", "photon"))
                text = text.replace(old, f'"{chance.choice(words)}"', 1)
            path.write_text(text, encoding="utf-8")
        return path

    def read(self, path: Path) -> None:
        geometry_from_xml(path, "photon")


class Manifest(Target):
    """generator.yaml beside intact parts."""

    name = "generator.yaml"

    def prepare(self, folder: Path) -> None:
        for path in OLD_GENERATOR.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        self._text = (OLD_GENERATOR / "generator.yaml").read_bytes()
        self._tree = yaml.safe_load(self._text)

    def write(self, chance: random.Random, folder: Path) -> Path:
        (folder / "generator.yaml").write_bytes(_mutated_yaml(self._text, self._tree, chance))
        return folder

    def read(self, path: Path) -> None:
        load_generator(path)


class RunConfigFile(Target):
    """config.yaml of a run folder, as `calo-eval` and `calo-runs reproduce` read it."""

    name = "config.yaml"

    def prepare(self, folder: Path) -> None:  # noqa: ARG002
        from calo_train.training.compose import compose_config

        self._tree = compose_config(["experiment=quickstart"])
        self._text = yaml.safe_dump(self._tree).encode()

    def write(self, chance: random.Random, folder: Path) -> Path:
        (folder / "config.yaml").write_bytes(_mutated_yaml(self._text, self._tree, chance))
        return folder

    def read(self, path: Path) -> None:
        check_config(RunFolder(path).read_config())


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (ShowerBytes(), ShowerStructure(), BinningXml(), Manifest(), RunConfigFile())
}

_GOOD_SHAPES = {
    "energies": (6, 48), "conditions/incident_energy": (6,), "conditions/polar_angle": (6,),
    "30x30/energy": (6, 1), "30x30/layers": (6, 3, 4, 4), "incident_energies": (6, 1),
    "showers": (6, 48),
}  # fmt: skip
_GRID = {
    "name": "cartesian",
    "axes": [
        {"name": "x", "start": -10.0, "stop": 10.0, "cells": 4},
        {"name": "y", "start": -10.0, "stop": 10.0, "cells": 4},
    ],
    "depth": 0.0,
    "layer_thicknesses": [5.0, 5.0, 5.0],
}


def read_showers(path: Path) -> None:
    """Open a file and read its first and last showers, as a training or `calo-data` does."""
    file = open_file(path)
    try:
        geometry = file.geometry or detectors.cartesian()
        # Point clouds have no voxels of their own.
        if file.geometry is None and file.num_voxels not in (0, geometry.num_voxels):
            return
        for start in {0, max(file.num_showers - 8, 0)}:
            file.read(start, min(start + 8, file.num_showers), geometry)
    finally:
        file.close()


def mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    """Change, cut out, put in or cut off some bytes; mostly few, often near the front."""
    mutated = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        reach = chance.choice((100, 2000, len(mutated)))
        place = chance.randrange(max(min(reach, len(mutated)), 1))
        kind = chance.random()
        if kind < 0.5:
            value = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
            mutated[place : place + 1] = bytes([value])
        elif kind < 0.7:
            mutated[place : place + 8] = chance.choice((b"\xff" * 8, bytes(8), b"\x7f" * 8))
        elif kind < 0.8:
            del mutated[place : place + chance.randrange(1, 64)]
        elif kind < 0.9:
            mutated[place:place] = chance.randbytes(chance.randrange(1, 64))
        else:
            del mutated[place:]
    return bytes(mutated)


def mutated_tree(tree: Any, chance: random.Random) -> Any:
    """Replace, remove or add some entries of nested lists and mappings."""
    mutated = copy.deepcopy(tree)
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = list(_containers(mutated))
        if not places:
            break
        place = chance.choice(places)
        if isinstance(place, dict):
            key = chance.choice(sorted(map(str, place))) if place else "key"
            _mutate_mapping(place, key, chance)
        elif place:
            index = chance.randrange(len(place))
            if chance.random() < 0.6:
                place[index] = copy.deepcopy(chance.choice(_ODD_VALUES))
            else:
                del place[index]
    return mutated


def _mutate_mapping(place: dict[Any, Any], key: str, chance: random.Random) -> None:
    kind = chance.random()
    if kind < 0.6:
        place[key] = copy.deepcopy(chance.choice(_ODD_VALUES))
    elif kind < 0.8:
        place.pop(key, None)
    elif kind < 0.9:
        place[chance.choice(_ODD_KEYS)] = place.pop(key, None)
    else:
        place[chance.choice([0, None, 1.5, True])] = copy.deepcopy(chance.choice(_ODD_VALUES))


def _containers(tree: Any) -> Any:
    if isinstance(tree, dict | list):
        yield tree
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from _containers(inner)


def _mutated_yaml(text: bytes, tree: Any, chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.35:
        return mutated_bytes(text, chance)
    if kind < 0.4:
        return chance.choice(_YAML_BOMBS)
    return yaml.safe_dump(mutated_tree(tree, chance), sort_keys=False).encode()


# Exploding anchors, recursion, tags, depth, control characters.
_YAML_BOMBS = [
    b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
        f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n".encode()
        for old, new in zip(string.ascii_lowercase[:12], string.ascii_lowercase[1:13], strict=True)
    ),
    b"format: &a [*a]\n",
    b"format: !!python/object/apply:os.system ['true']\n",
    b"[" * 20_000,
    b"{a: " * 5_000,
    b"- " * 20_000,
    b"",
    b"\x00",
    b"\xff\xfe\x00",
    b"1: 2\n? [a, b]\n: c\n",
    b"format: calo-train generator\nformat_version: 1\n",
    b"<<: &b {<<: *b}\n",
]  # fmt: skip


def _add_node(file: h5py.File, key: str, chance: random.Random) -> None:
    """Add an array, mostly as it should be, or something else under its name."""
    kind = chance.random()
    if kind > 0.6:  # as it should be
        file.create_dataset(key, data=np.ones(_GOOD_SHAPES[key], "f4"))
        return
    rows = chance.choice((6, 6, 6, 0, 1, 7))
    if kind < 0.08:
        file.create_group(key)
    elif kind < 0.14:
        file[key] = chance.choice((h5py.SoftLink("/"), h5py.SoftLink(f"/{key}"),
                                   h5py.ExternalLink("/etc/passwd", "/")))  # fmt: skip
    elif kind < 0.2:
        group = file.require_group(key.partition("/")[0])
        group["again"] = file["/"]  # a cycle of groups
    elif kind < 0.3:
        file[key] = chance.choice(("text", np.bytes_(b"abc"), 5, np.zeros(0), np.float64(3)))
    else:
        shape = chance.choice(((rows, 48), (rows, 3, 4, 4), (rows, 1), (rows,), (rows, 48, 1), ()))
        dtype = chance.choice(("f4", "f8", "f2", "i4", "u1", "S3", "c8", "?", "f4"))
        array = file.create_dataset(key, shape, dtype)
        if chance.random() < 0.6 and array.size:
            array[...] = np.ones(shape, dtype)
        if chance.random() < 0.3:
            _set_odd_attribute(array, chance)


def _set_odd_attribute(node: Any, chance: random.Random) -> None:
    name = chance.choice(("unit", "mantissa_bits", "layout", "layout_version", "geometry", "x"))
    values = ("GeV", "parsec", "\x1b[2J", b"\xff\xfe", 60, -1, 1.5, np.zeros(3), h5py.Empty("f4"),
              "", ["a", "b"], np.float64("nan"))  # fmt: skip
    node.attrs[name] = chance.choice(values)
