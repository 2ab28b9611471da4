"""Materials, and stacks of them as one effective medium.

Values of the Particle Data Group, Atomic and Nuclear Properties of Materials (pdg.lbl.gov, 2023
tables; G10 from the 2004 table, where it was last listed). The mix is that of Grindhammer &
Peters, arXiv:hep-ex/0001020: slabs are weighted by mass, critical energies by radiation
lengths. Not here: temperature, pressure, and the order of the slabs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SCALE_ENERGY = 21.2  # MeV; E_s of the Moliere radius R_M = X0 E_s / E_c as in GFlash
_CM = 10.0  # mm


@dataclass(frozen=True)
class Material:
    """One material in the units of the PDG tables: g, cm, MeV."""

    atomic_number: float  # mean over mass for compounds
    charge_per_mass: float  # <Z/A>
    density: float  # g/cm3
    radiation_length: float  # g/cm2
    interaction_length: float  # g/cm2, of nuclear interactions
    ionisation: float  # MeV cm2/g, of a minimum ionising particle

    @property
    def critical_energy(self) -> float:
        """E_c = 2.66 MeV (X0 Z/A)^1.1, as hep-ex/0001020 takes it, in MeV."""
        return float(2.66 * (self.radiation_length * self.charge_per_mass) ** 1.1)


MATERIALS = {
    "W": Material(74, 0.40252, 19.30, 6.76, 191.9, 1.145),
    "Pb": Material(82, 0.39575, 11.35, 6.37, 199.6, 1.122),
    "Cu": Material(29, 0.45636, 8.960, 12.86, 137.3, 1.403),
    "Fe": Material(26, 0.46557, 7.874, 13.84, 132.1, 1.451),
    "Al": Material(13, 0.48181, 2.699, 24.01, 107.2, 1.615),
    "Si": Material(14, 0.49848, 2.329, 21.82, 108.4, 1.664),
    "liquid_Ar": Material(18, 0.45059, 1.396, 19.55, 119.7, 1.508),
    "polystyrene": Material(5.6, 0.53768, 1.060, 43.79, 77.5, 1.936),
    "G10": Material(8.5, 0.50, 1.70, 33.0, 90.2, 1.87),
    "PbWO4": Material(68.4, 0.41315, 8.30, 7.39, 168.3, 1.229),
    "air": Material(7.4, 0.49919, 1.205e-3, 36.62, 90.1, 1.815),
}


@dataclass(frozen=True)
class Slab:
    """A plate of one material, mm; what is deposited in active ones is read out."""

    material: Material
    thickness: float
    is_active: bool

    @property
    def surface_density(self) -> float:
        """Mass of a column, g/cm2."""
        return self.material.density * self.thickness / _CM

    @property
    def radiation_lengths(self) -> float:
        return self.surface_density / self.material.radiation_length


@dataclass(frozen=True)
class Medium:
    """What a stack of slabs is to a shower; lengths mm, energies MeV."""

    atomic_number: float
    radiation_length: float
    moliere_radius: float
    critical_energy: float
    interaction_length: float
    sampling_length: float  # one repetition of the slabs in X0: 1/F_S; 0 where homogeneous
    response_ratio: float  # e/mip, e^ of hep-ex/0001020; 1 where homogeneous
    active_share: float  # of what a minimum ionising particle deposits

    @property
    def is_homogeneous(self) -> bool:
        return self.sampling_length == 0


def mixed(slabs: Sequence[Slab]) -> Medium:
    """Give the effective medium of slabs that repeat, hep-ex/0001020.

    1/X0 = sum w/X0, E_c = X0 sum w E_c/X0, 1/R_M = E_c/(E_s X0), Z = sum w Z with w the shares of
    mass; e/mip = 1/(1 + 0.007 (Z_p - Z_a)) with Z_p of the slab with most radiation lengths.
    """
    mass = sum(slab.surface_density for slab in slabs)
    thickness = sum(slab.thickness for slab in slabs)
    depth = sum(slab.radiation_lengths for slab in slabs)
    interactions = sum(s.surface_density / s.material.interaction_length for s in slabs)
    critical = sum(s.radiation_lengths * s.material.critical_energy for s in slabs) / depth
    loss = [slab.surface_density * slab.material.ionisation for slab in slabs]
    active = sum(value for value, slab in zip(loss, slabs, strict=True) if slab.is_active)
    is_homogeneous = len({slab.material for slab in slabs}) == 1
    radiation_length = thickness / depth
    return Medium(
        atomic_number=sum(s.surface_density * s.material.atomic_number for s in slabs) / mass,
        radiation_length=radiation_length,
        moliere_radius=radiation_length * _SCALE_ENERGY / critical,
        critical_energy=critical,
        interaction_length=thickness / interactions,
        sampling_length=0.0 if is_homogeneous else depth,
        response_ratio=1.0 if is_homogeneous else _response_ratio(slabs),
        active_share=active / sum(loss),
    )


def _response_ratio(slabs: Sequence[Slab]) -> float:
    absorber = max(slabs, key=lambda slab: slab.radiation_lengths)
    others = [slab for slab in slabs if slab.material != absorber.material]
    read_out = [slab for slab in others if slab.is_active] or others
    mass = sum(slab.surface_density for slab in read_out)
    active = sum(s.surface_density * s.material.atomic_number for s in read_out) / mass
    return 1 / (1 + 0.007 * (absorber.material.atomic_number - active))
