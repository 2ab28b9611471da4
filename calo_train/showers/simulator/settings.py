"""What the simulator is told of a detector beside its geometry; `conf/simulator` explains it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from calo_train.errors import UsageError, nearest_names
from calo_train.quantities import Spectrum, parse_quantity, parse_spectrum
from calo_train.showers.simulator.materials import MATERIALS, Medium, Slab, mixed

PARTICLES = ("electron", "photon", "pion")
_THINNEST = 1e-6  # mm
_STEEPEST = 1.4  # rad; a shower along the layers would cross them nowhere


@dataclass
class StackRegion:
    """Slabs that repeat behind `first_layer`, until the next region begins."""

    first_layer: int
    slabs: list[dict[str, Any]]  # material, thickness and, where read out, active: true


@dataclass
class SimulatorConfig:
    """Stack of materials, response and beam."""

    regions: list[StackRegion]
    sampling_resolution: float
    particle: str
    e_over_mip: float | None = None
    readout_scale: float = 1.0
    layer_lengths: list[str] = field(default_factory=list)
    polar_angle: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.particle not in PARTICLES:
            raise UsageError(
                f"no parametrisation of the particle '{self.particle}'",
                where="simulator.particle",
                do=f"use one of {', '.join(PARTICLES)}",
            )
        starts = [region.first_layer for region in self.regions]
        if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
            raise UsageError(
                f"regions begin at layers {starts}",
                where="simulator.regions",
                do="list regions from layer 0 on, in order",
            )
        if not 0 <= self.seed < 2**63:
            raise UsageError(
                f"seed {self.seed} is out of range",
                where="simulator.seed",
                do="give 0 to 2^63 - 1",
            )
        if not self.sampling_resolution >= 0:
            raise UsageError(
                f"sampling_resolution={self.sampling_resolution}",
                where="simulator.sampling_resolution",
                do="give the share at 1 GeV, such as 0.17, and 0 where all is read out",
            )
        _ = self.media, self.lengths, self.polar_angles

    @property
    def media(self) -> tuple[Medium, ...]:
        """The effective medium of each region."""
        stacks = [[_slab(entry) for entry in region.slabs] for region in self.regions]
        if not all(stacks):
            raise UsageError(
                "a region without a slab",
                where="simulator.regions.slabs",
                do="give at least one material and thickness",
            )
        return tuple(mixed(slabs) for slabs in stacks)

    @property
    def lengths(self) -> list[float]:
        """Thickness of each layer in mm where the geometry has none; else empty."""
        where = "simulator.layer_lengths"
        return [parse_quantity(text, "length", where=where) for text in self.layer_lengths]

    @property
    def polar_angles(self) -> Spectrum | None:
        """Law of the angle to the normal of the layers, rad; None for normal incidence."""
        if self.polar_angle is None:
            return None
        law = parse_spectrum(self.polar_angle, "angle", where="simulator.polar_angle")
        if law.low < 0 or law.high > _STEEPEST:
            raise UsageError(
                f"polar angles of {law.low:g} to {law.high:g} rad",
                where="simulator.polar_angle",
                do=f"stay between 0 and {_STEEPEST} rad; 0 is along the normal",
            )
        return law


def _slab(entry: dict[str, Any]) -> Slab:
    where = "simulator.regions.slabs"
    unknown = set(entry) - {"material", "thickness", "active"}
    if unknown or not {"material", "thickness"} <= set(entry):
        raise UsageError(
            f"a slab has the keys {', '.join(map(str, entry))}",
            where=where,
            do="give material, thickness and, where it is read out, active: true",
        )
    name = str(entry["material"])
    if name not in MATERIALS:
        raise UsageError(
            f"unknown material '{name}'", where=where, do=nearest_names(name, MATERIALS)
        )
    thickness = parse_quantity(str(entry["thickness"]), "length", where=where)
    if not thickness >= _THINNEST:
        raise UsageError(
            f"a slab of {thickness:g} mm", where=where, do="give a thickness of 1 nm or more"
        )
    return Slab(MATERIALS[name], thickness, bool(entry.get("active", False)))
