"""L2LFlows: published sizes, and the physics of its pre- and postprocessing."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from detectors import cartesian, make_showers, ragged
from hypothesis import given, settings
from hypothesis import strategies as st

from calo_train.config_folder import conf_folder
from calo_train.errors import DataError
from calo_train.families.flow_settings import FlowSettings
from calo_train.families.l2lflows import L2LFlows
from calo_train.families.l2lflows.features import incident_energy_context, renormalise_and_cut
from calo_train.families.l2lflows.networks import build_causal_flow, build_energy_flow
from calo_train.families.settings import build_family
from calo_train.geometry import Geometry, geometry_from_mapping
from calo_train.nn.flows import count_parameters
from calo_train.nn.logit import inverse_logit, logit
from calo_train.showers.statistics import gather_statistics

if TYPE_CHECKING:
    from pathlib import Path

    from nflows.flows import Flow
    from torch import Tensor

    from calo_train.showers.statistics import ShowerStatistics

SUM_RTOL = 1e-12  # float64 sums of a hundred voxels
SHARE_RTOL = 1e-4  # features agree to 1e-13, but shares near zero are a difference from alpha


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


def _walk(voxels: Tensor, layer_energy: float, threshold: float) -> Tensor:
    """Naive loop over ranks: the smallest k whose scaled voxel passes (2302.11594 App. B.3)."""
    kept = torch.zeros_like(voxels)
    order = sorted(range(len(voxels)), key=lambda cell: float(voxels[cell]))
    for k in range(len(voxels)):
        total = sum(float(voxels[cell]) for cell in order[k:])
        if total > 0 and layer_energy / total * float(voxels[order[k]]) >= threshold:
            for cell in order[k:]:
                kept[cell] = layer_energy / total * voxels[cell]
            break
    return kept


def test_renormalise_and_cut_follows_the_walk_of_the_original_routine() -> None:
    """All layers at once, with an empty one, one without energy and equal voxels at the cut."""
    random = torch.Generator().manual_seed(2)
    voxels = torch.rand(50, 4, 12, generator=random, dtype=torch.float64)
    energies = 3 * torch.rand(50, 4, generator=random, dtype=torch.float64)
    voxels[0, 1], energies[1, 1] = 0, 0
    voxels[2:9, 2, ::2] = 1
    energies[2:9, 2] = 0.2 * torch.arange(7) + 0.1
    found = renormalise_and_cut(voxels, energies, 0.2)
    for row, layer in itertools.product(range(50), range(4)):
        expected = _walk(voxels[row, layer], float(energies[row, layer]), 0.2)
        torch.testing.assert_close(found[row, layer], expected, rtol=SUM_RTOL, atol=0)


@pytest.mark.parametrize("broken", ["voxel", "layer energy"])
def test_what_is_not_a_number_is_not_cut_away(broken: str) -> None:
    """S8: a diverged flow must not look like an empty layer."""
    voxels, energies = torch.ones(2, 3, 4), torch.ones(2, 3)
    (voxels[1, 2] if broken == "voxel" else energies[1])[2] = torch.nan
    is_nan = renormalise_and_cut(voxels, energies, 0.1).isnan().any(dim=2)
    assert is_nan.nonzero().tolist() == [[1, 2]]


@torch.no_grad()
def test_sampler_equals_a_loop_over_layers_with_nflows_inverse() -> None:
    """On layers of different sizes, some of them equal neighbours."""
    geometry, threshold = ragged(), 0.05
    statistics = gather_statistics([make_showers(geometry, 50)], geometry)
    small = FlowSettings(num_blocks=2, hidden_features=8)
    family = L2LFlows(small, small, 2, [8], 4, tile=7)
    energy_flow, *causal_flows = _stirred_parts(family, geometry, statistics, threshold)
    parts = {"energy/0": energy_flow.state_dict()}
    parts |= {f"causal/{layer}": flow.state_dict() for layer, flow in enumerate(causal_flows)}
    random = torch.Generator().manual_seed(3)
    normals = 3 * torch.randn(7, 4 + 31, generator=random, dtype=torch.float64)
    incident = torch.linspace(1e4, 1e5, 7, dtype=torch.float64)
    drawn = family.build_sampler(
        geometry, statistics, threshold, parts, dtype=torch.float64, device=torch.device("cpu")
    ).draw(normals, {"incident_energy": incident})

    condition = (2 * torch.log10(incident / 1000) - 3)[:, None]
    features = energy_flow._transform.inverse(normals[:, :4], condition)[0]
    layer_energies = 1000 * inverse_logit(features)
    previous: list[Tensor] = []
    for layer, voxels in enumerate(geometry.layer_slices):
        own = torch.log10(layer_energies[:, layer, None] / 1000 + 1e-6) + 1
        context = torch.cat([*previous[:2], own, condition], dim=1)
        flow = causal_flows[layer]
        base, embedded = normals[:, 4:][:, voxels], flow._embedding_net(context)
        features = flow._transform.inverse(base, embedded)[0]
        previous.insert(0, features)
        shares = inverse_logit(features) * (statistics.voxel_max[layer] + 1e-3)
        for row in range(7):
            expected = _walk(shares[row], float(layer_energies[row, layer]), threshold)
            found = drawn.energies[row, voxels]
            torch.testing.assert_close(found, expected.float(), rtol=SHARE_RTOL, atol=0)
    is_clipped = torch.cat(previous, dim=1).abs() > math.log(1e6)
    assert drawn.repairs["voxels_clipped"].tolist() == is_clipped.sum(dim=1).tolist()
    assert is_clipped.any()


def _stirred_parts(
    family: L2LFlows, geometry: Geometry, statistics: ShowerStatistics, threshold: float
) -> list[Flow]:
    """Untrained flows in float64, moved off their initial weights, which map noise to itself."""
    torch.manual_seed(1)
    flows = [
        stage.build_part(index).double().eval()
        for stage in family.stages(geometry, statistics, threshold)
        for index in range(len(stage.part_names))
    ]
    for parameter in (parameter for flow in flows for parameter in flow.parameters()):
        parameter.add_(0.3 * torch.randn_like(parameter))
    return flows


def test_layer_energies_above_their_unit_are_refused_with_one_that_fits() -> None:
    family, _ = _paper()
    showers = make_showers(cartesian(), 50)
    statistics = gather_statistics([showers], cartesian())
    family.require_statistics(cartesian(), statistics)
    family.layer_energy_unit = "1MeV"
    with pytest.raises(DataError, match="layer_energy_unit"):
        family.require_statistics(cartesian(), statistics)


@pytest.mark.parametrize(("largest", "unit"), [(900.0, 1000.0), (60_000.0, 66_000.0)])
def test_unit_of_layer_energies_is_the_papers_where_it_fits(largest: float, unit: float) -> None:
    """App. B.1: 1 GeV, which no layer of the ILD reaches; CaloChallenge layers do."""
    family, geometry = _paper()
    statistics = gather_statistics([make_showers(cartesian(), 5)], cartesian())
    energies = replace(statistics, layer_energy_max=(1.0, largest, 2.0))
    assert family.energy_unit(energies) == pytest.approx(unit)
    family.require_statistics(geometry, energies)
