"""iCaloFlow: one flow draws layer after layer (Buckley et al., 2305.11934)."""

from calo_train.families.icaloflow.family import ICaloFlow

__all__ = ["ICaloFlow"]
