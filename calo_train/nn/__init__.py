"""Networks and densities that know no physics; importable by other people's code."""

from calo_train.nn.incremental_inverse import PackedFlow, incremental_inverse, pack

__all__ = ["PackedFlow", "incremental_inverse", "pack"]
