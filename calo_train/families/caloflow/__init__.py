"""CaloFlow: a layer-energy flow and a voxel flow, and its student (2106.05285, 2110.11377)."""

from calo_train.families.caloflow.family import CaloFlow

__all__ = ["CaloFlow"]
