"""Networks and densities that know no physics; importable by other people's code."""

from calo_train.nn.incremental_inverse import incremental_inverse
from calo_train.nn.packed_flow import PackedFlow, pack

__all__ = ["PackedFlow", "incremental_inverse", "pack"]
