"""SuperCalo: coarse showers, then super-resolution of every coarse voxel (2308.11700)."""

from calo_train.families.supercalo.family import SuperCalo

__all__ = ["SuperCalo"]
