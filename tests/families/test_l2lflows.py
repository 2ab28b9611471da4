"""L2LFlows: published sizes, and the physics of its pre- and postprocessing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from detectors import cartesian, make_showers
from hypothesis import given, settings
from hypothesis import strategies as st

from calo_train.config_folder import conf_folder
from calo_train.errors import DataError
from calo_train.families.l2lflows import L2LFlows
from calo_train.families.l2lflows.features import (
    incident_energy_context,
    inverse_logit,
    logit,
    renormalise_and_cut,
)
from calo_train.families.l2lflows.networks import build_causal_flow, build_energy_flow
from calo_train.families.settings import build_family
from calo_train.geometry import Geometry, geometry_from_mapping
from calo_train.nn.flows import count_parameters
from calo_train.showers.statistics import gather_statistics

if TYPE_CHECKING:
    from pathlib import Path

SUM_RTOL = 1e-12  # float64 sums of a hundred voxels


def _conf(group: str, name: str) -> dict[str, object]:
    path: Path = conf_folder() / group / f"{name}.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _paper() -> tuple[L2LFlows, Geometry]:
    family = build_family(_conf("model", "l2lflows"), where="model")
    assert isinstance(family, L2LFlows)
    return family, geometry_from_mapping(_conf("geometry", "ild_30x10x10"))


def test_energy_flow_has_the_published_size() -> None:
    """306,732 weights: 2302.11594 Tab. 4 on 30 layers."""
    family, geometry = _paper()
    assert count_parameters(build_energy_flow(family, geometry, 1)) == 306_732


def test_causal_flows_have_the_published_size() -> None:
    """44,775,136 weights in 30 flows: 2302.11594, with its embedding networks."""
    family, geometry = _paper()
    sizes = [
        count_parameters(build_causal_flow(family, geometry, 1, layer)) for layer in range(30)
    ]
    assert sizes[:6] == [1_306_096, 1_405_360, 1_430_960, 1_456_560, 1_482_160, 1_507_760]
    assert sum(sizes) == 44_775_136


def test_incident_energy_context_spans_one_on_the_papers_range() -> None:
    context = incident_energy_context(torch.tensor([10_000.0, 100_000.0]))
    torch.testing.assert_close(context, torch.tensor([-1.0, 1.0]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_inverse_logit_undoes_logit(shares: list[float]) -> None:
    values = torch.tensor(shares, dtype=torch.float64)
    torch.testing.assert_close(inverse_logit(logit(values)), values, rtol=0, atol=1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(0, 5))
def test_renormalised_layers_carry_their_energy_above_the_threshold(
    seed: int, num_voxels: int, layer_energy: float
) -> None:
    """Kept voxels sum to the layer energy and pass the threshold; below it the layer is empty."""
    random = torch.Generator().manual_seed(seed)
    voxels = torch.rand(20, num_voxels, generator=random, dtype=torch.float64) ** 4
    voxels[0] = 0
    energies = torch.full((20,), layer_energy, dtype=torch.float64)
    kept = renormalise_and_cut(voxels, energies, 0.1)
    assert not kept[0].any()
    expected = layer_energy if layer_energy >= 0.1 else 0.0
    torch.testing.assert_close(
        kept[1:].sum(dim=1),
        torch.full((19,), expected, dtype=torch.float64),
        rtol=SUM_RTOL,
        atol=SUM_RTOL,
    )
    assert (kept[kept > 0] >= 0.1 * (1 - SUM_RTOL)).all()


def test_renormalise_and_cut_follows_the_walk_of_the_original_routine() -> None:
    """Naive loop over ranks: the smallest k whose scaled voxel passes (2302.11594 App. B.3)."""
    random = torch.Generator().manual_seed(2)
    voxels = torch.rand(50, 12, generator=random, dtype=torch.float64)
    energies = 3 * torch.rand(50, generator=random, dtype=torch.float64)
    found = renormalise_and_cut(voxels, energies, 0.2)
    for row in range(50):
        order = sorted(range(12), key=lambda cell: float(voxels[row, cell]))
        expected = torch.zeros(12, dtype=torch.float64)
        for k in range(12):
            total = sum(float(voxels[row, cell]) for cell in order[k:])
            factor = float(energies[row]) / total
            if factor * float(voxels[row, order[k]]) >= 0.2:
                for cell in order[k:]:
                    expected[cell] = factor * voxels[row, cell]
                break
        torch.testing.assert_close(found[row], expected, rtol=SUM_RTOL, atol=0)


def test_layer_energies_above_their_unit_are_refused_with_one_that_fits() -> None:
    family, _ = _paper()
    showers = make_showers(cartesian(), 50)
    statistics = gather_statistics([showers], cartesian())
    family.require_statistics(cartesian(), statistics)
    family.layer_energy_unit = "1MeV"
    with pytest.raises(DataError, match="layer_energy_unit"):
        family.require_statistics(cartesian(), statistics)
