"""L2LFlows: a layer-energy flow and one causal flow a layer (Diefenbacher et al., 2302.11594)."""

from calo_train.families.l2lflows.family import L2LFlows

__all__ = ["L2LFlows"]
