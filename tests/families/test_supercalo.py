"""SuperCalo: published sizes, its coarse voxels, and the chain against naive loops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml
from detectors import cartesian, make_showers, polar, ragged, single_voxel

from calo_train.config_folder import conf_folder
from calo_train.errors import DataError, UsageError
from calo_train.families.contracts import CoarseTile, ShowerBatch
from calo_train.families.flow_settings import FlowSettings
from calo_train.families.settings import build_family
from calo_train.families.supercalo import SuperCalo
from calo_train.families.supercalo.networks import (
    build_coarse_flow,
    build_energy_flow,
    build_upsampling_flow,
    upsampling_context_width,
)
from calo_train.families.supercalo.stages import UpsamplingStage
from calo_train.geometry import Geometry, geometry_from_mapping
from calo_train.nn.flows import count_parameters
from calo_train.nn.logit import logit
from calo_train.showers.statistics import ShowerStatistics, gather_statistics

if TYPE_CHECKING:
    from nflows.flows import Flow
    from torch import Tensor

RTOL = 1e-8  # float64
SHARE_RTOL = 1e-4  # features agree to 1e-13, but shares near zero are a difference from alpha
THRESHOLD = 0.05
INCIDENT = "incident_energy"


def _paper(experiment: str | None = None) -> tuple[SuperCalo, Geometry]:
    conf = conf_folder()
    model = yaml.safe_load((conf / "model" / "supercalo.yaml").read_text(encoding="utf-8"))
    if experiment is not None:
        text = (conf / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
        model["coarse"] = yaml.safe_load(text)["model"]["coarse"]
    family = build_family(model, where="model")
    assert isinstance(family, SuperCalo)
    grid = (conf / "geometry" / "calochallenge_ds2.yaml").read_text(encoding="utf-8")
    return family, geometry_from_mapping(yaml.safe_load(grid))


def test_flows_have_the_published_sizes() -> None:
    """87,465,608 weights on data set 2 (2410.21611), and 31 columns of context (2308.11700)."""
    family, geometry = _paper()
    grid = family.grid(geometry)
    builders = (build_energy_flow, build_coarse_flow, build_upsampling_flow)
    sizes = [count_parameters(build(family, grid, 1)) for build in builders]
    assert sizes == [2_752_600, 84_167_424, 545_584]
    assert sum(sizes) == 87_465_608
    assert upsampling_context_width(grid, 1) == 31


def test_voxelisation_b_has_twelve_fine_voxels_in_540_coarse_ones() -> None:
    family, geometry = _paper("supercalo_b")
    grid = family.grid(geometry)
    assert (grid.num_voxels, grid.num_fine) == (540, 12)


def _small(geometry: Geometry, **coarse: int) -> SuperCalo:
    flow = FlowSettings(num_blocks=2, hidden_features=12, permutation="alternating")
    family = SuperCalo(
        coarse=coarse, energy_flow=flow, coarse_flow=flow, upsampling_flow=flow, tile=5
    )
    family.require_describable(geometry, [INCIDENT])
    return family


CASES = [
    pytest.param(polar(), {"alpha": 2, "z": 3}, id="polar"),
    pytest.param(cartesian(), {"x": 2, "y": 1, "z": 1}, id="cartesian"),
]


def _statistics(family: SuperCalo, geometry: Geometry, number: int = 40) -> ShowerStatistics:
    blocks = [make_showers(geometry, number)]
    return gather_statistics(blocks, geometry, family.voxel_groups(geometry))


def _place(geometry: Geometry, voxel: int) -> tuple[int, int, int]:
    """Layer and cell of a voxel, by counting."""
    size = geometry.layers[0].num_voxels
    return voxel // size, *divmod(voxel % size, geometry.layers[0].shape[1])


def _members(fine: Geometry, coarse: Geometry, voxel: int) -> list[int]:
    """Fine voxels whose layer and cells lie in a coarse one."""
    steps = (
        fine.num_layers // coarse.num_layers,
        *(a // b for a, b in zip(fine.layer_shapes[0], coarse.layer_shapes[0], strict=True)),
    )
    wanted = _place(coarse, voxel)
    return [
        number
        for number in range(fine.num_voxels)
        if tuple(at // s for at, s in zip(_place(fine, number), steps, strict=True)) == wanted
    ]


def _naive_context(
    family: SuperCalo, geometry: Geometry, units: tuple[float, float], shower: dict[str, Tensor]
) -> Tensor:
    """The context of all coarse voxels of one shower, column by column (2308.11700)."""
    coarse = family.coarse_geometry(geometry)[0]
    layer_unit, coarse_unit = units
    joined = geometry.num_layers // coarse.num_layers
    shape = (coarse.num_layers, *coarse.layer_shapes[0])
    axes = coarse.layers[0].axes
    energy = shower["around"].reshape(shape)
    rows = []
    for voxel in range(coarse.num_voxels):
        place = _place(coarse, voxel)
        row = [float(torch.log10(shower["incident"])) - 4.5]
        spanned = range(place[0] * joined, (place[0] + 1) * joined)
        row += [float(logit(shower["layers"][layer] / layer_unit)) for layer in spanned]
        row.append(float(logit(shower["own"][voxel] / coarse_unit)))
        for dimension, is_periodic in (
            (2, axes[1].is_periodic), (0, False), (1, axes[0].is_periodic)
        ):  # fmt: skip
            for step in (-1, 1):
                beside = list(place)
                beside[dimension] += step
                if is_periodic:
                    beside[dimension] %= shape[dimension]
                inside = 0 <= beside[dimension] < shape[dimension]
                found = energy[tuple(beside)] if inside else torch.zeros(())
                row.append(float(logit(found.double() / coarse_unit)))
        for dimension, axis in ((2, axes[1]), (1, axes[0]), (0, None)):
            if axis is None or not axis.is_periodic:
                row += [float(place[dimension] == k) for k in range(shape[dimension])]
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("geometry", "coarse"), CASES)
def test_training_rows_equal_naive_loops(geometry: Geometry, coarse: dict[str, int]) -> None:
    """Shares, sums with noise, neighbours without noise and place of every coarse voxel."""
    family = _small(geometry, **coarse)
    statistics = _statistics(family, geometry)
    upsampling = family.stages(geometry, statistics, THRESHOLD)[2]
    batch = _batch(geometry, 3)
    part = upsampling.inputs(batch, [0], torch.Generator().manual_seed(4))(0)
    grid = family.grid(geometry)
    assert part.rows_per_shower == grid.num_voxels
    uniform = 1 - torch.rand(
        (3, grid.num_voxels, grid.num_fine),
        generator=torch.Generator().manual_seed(4),
        dtype=torch.float64,
    )
    units = (family.layer_unit(statistics), family.coarse_unit(statistics))
    for number in range(3):
        energies = batch.energies[number]
        groups = [_members(geometry, grid.coarse, voxel) for voxel in range(grid.num_voxels)]
        fine = torch.stack([energies[group] for group in groups])
        noisy = fine + 1e-4 * uniform[number]
        layers = torch.stack([energies[piece].sum() for piece in geometry.layer_slices])
        shower = {
            "incident": batch.conditions[INCIDENT][number], "layers": layers,
            "own": noisy.sum(dim=1), "around": fine.sum(dim=1),
        }  # fmt: skip
        rows = slice(number * grid.num_voxels, (number + 1) * grid.num_voxels)
        shares = noisy / noisy.sum(dim=1, keepdim=True)
        torch.testing.assert_close(part.features[rows], logit(shares), rtol=RTOL, atol=0)
        expected = _naive_context(family, geometry, units, shower)
        assert part.context is not None
        torch.testing.assert_close(part.context[rows], expected, rtol=RTOL, atol=RTOL)


def _batch(geometry: Geometry, number: int) -> ShowerBatch:
    showers = make_showers(geometry, number)
    conditions = {name: torch.from_numpy(c).double() for name, c in showers.conditions.items()}
    energies = torch.from_numpy(showers.energies).double()
    return ShowerBatch(energies, conditions, torch.arange(number))


@torch.no_grad()
@pytest.mark.parametrize(("geometry", "coarse"), CASES)
def test_chain_equals_naive_loops_over_nflows(geometry: Geometry, coarse: dict[str, int]) -> None:
    """Section by section with nflows' own inverse; empty coarse voxels give zeros."""
    family = _small(geometry, **coarse)
    statistics = _statistics(family, geometry)
    flows, parts = _stirred_parts(family, geometry, statistics)
    sampler = family.build_sampler(
        geometry, statistics, THRESHOLD, parts, dtype=torch.float64, device=torch.device("cpu")
    )
    normals = torch.randn(
        5, sampler.num_normals, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    incident = torch.linspace(1e4, 1e5, 5, dtype=torch.float64)
    drawn = sampler.draw(normals, {INCIDENT: incident}).energies.double()

    grid = family.grid(geometry)
    layer_unit, unit = family.layer_unit(statistics), family.coarse_unit(statistics)
    sizes = [geometry.num_layers, grid.num_layers, grid.num_voxels, grid.num_voxels]
    z = torch.split(normals, [*sizes, geometry.num_voxels], dim=1)
    uniform = [0.5 * (1 + torch.erf(part / math.sqrt(2))) for part in z]
    e = (torch.log10(incident) - 4.5)[:, None]
    layers = layer_unit * _share(flows[0]._transform.inverse(z[0], e)[0])
    layers[layers < THRESHOLD] = 0
    sums = layers.reshape(5, grid.num_layers, -1).sum(dim=2)
    largest = 5e-3 * grid.num_voxels / grid.num_layers
    context = torch.cat([e, torch.log10(sums + largest * uniform[1]) / 4], dim=1)
    coarse = unit * 10 ** (flows[1]._transform.inverse(z[2], context)[0] - 6)
    coarse[coarse < THRESHOLD] = 0
    assert (coarse == 0).any()
    own = coarse + 5e-3 * uniform[3]
    for number in range(5):
        shower = {
            "incident": incident[number], "layers": layers[number],
            "own": own[number], "around": coarse[number],
        }  # fmt: skip
        rows = _naive_context(family, geometry, (layer_unit, unit), shower)
        base = z[4][number].reshape(grid.num_voxels, -1)
        shares = _share(flows[2]._transform.inverse(base, rows)[0])
        for voxel in range(grid.num_voxels):
            fine = own[number, voxel] * shares[voxel] / shares[voxel].sum()
            fine[fine < THRESHOLD] = 0
            if coarse[number, voxel] == 0:
                fine[:] = 0
            found = drawn[number, _members(geometry, grid.coarse, voxel)]
            torch.testing.assert_close(found, fine, rtol=SHARE_RTOL, atol=0)


def _share(features: Tensor) -> Tensor:
    return ((torch.sigmoid(features) - 1e-6) / (1 - 2e-6)).clamp(0, 1)


def _stirred_parts(
    family: SuperCalo, geometry: Geometry, statistics: ShowerStatistics
) -> tuple[list[Flow], dict[str, dict[str, Tensor]]]:
    """Untrained flows in float64, moved off their initial weights, which map noise to itself."""
    torch.manual_seed(1)
    stages = family.stages(geometry, statistics, THRESHOLD)
    flows = [stage.build_part(0).double().eval() for stage in stages]
    for parameter in (parameter for flow in flows for parameter in flow.parameters()):
        parameter.add_(0.3 * torch.randn_like(parameter))
    pairs = zip(stages, flows, strict=True)
    return flows, {f"{stage.name}/0": flow.state_dict() for stage, flow in pairs}


@torch.no_grad()
def test_refined_voxels_share_the_energy_of_their_coarse_voxel() -> None:
    """Given coarse voxels keep their energy up to the noise and cut; empty ones stay empty."""
    geometry = polar()
    family = replace(_small(geometry, alpha=2, z=3), coarse_showers="given")
    statistics = _statistics(family, geometry)
    _, parts = _stirred_parts(family, geometry, statistics)
    assert sorted(parts) == ["energy/0", "upsampling/0"]
    refiner = family.build_refiner(
        geometry, statistics, 0.0, parts, dtype=torch.float64, device=torch.device("cpu")
    )
    grid = family.grid(geometry)
    coarse = 40 * torch.rand(5, grid.num_voxels, generator=torch.Generator().manual_seed(2))
    coarse[:, ::2] = 0
    coarse[0] = 0
    normals = torch.randn(5, refiner.num_normals, generator=torch.Generator().manual_seed(3))
    conditions = {INCIDENT: torch.full((5,), 5e4)}
    fine = refiner.refine(normals, conditions, CoarseTile(coarse, None)).energies
    sums = fine[:, grid.voxels.flatten()].view(5, *grid.voxels.shape).sum(dim=2)
    assert not sums[coarse == 0].any()
    excess = (sums - coarse)[coarse > 0]
    lost = grid.num_fine * 1e-4  # at most the cut in every voxel
    assert -lost <= float(excess.min()) < float(excess.max()) <= 5e-3 + 1e-5
    nothing = refiner.refine(normals, conditions, CoarseTile(torch.zeros_like(coarse), None))
    assert not nothing.energies.any()
    scaled = refiner.refine(normals, conditions, CoarseTile(coarse, coarse.new_ones(5, 3)))
    assert not torch.equal(scaled.energies, fine)


def test_subset_of_coarse_voxels_takes_those_with_energy_first() -> None:
    geometry = polar()
    family = replace(_small(geometry, alpha=2), voxels_per_shower=4)
    stage = family.stages(geometry, _statistics(family, geometry), THRESHOLD)[2]
    assert isinstance(stage, UpsamplingStage)
    energies = torch.zeros(6, family.grid(geometry).num_voxels)
    energies[:, 3:6] = 1.0
    showers, voxels = stage._chosen(energies, torch.Generator().manual_seed(0))
    assert showers.tolist() == [number for number in range(6) for _ in range(4)]
    assert all({3, 4, 5} < set(row) for row in voxels.view(6, 4).tolist())


def test_empty_showers_give_finite_rows() -> None:
    geometry = polar()
    family = _small(geometry, alpha=2, z=3)
    stages = family.stages(geometry, _statistics(family, geometry), THRESHOLD)
    batch = _batch(geometry, 2)
    empty = replace(batch, energies=torch.zeros_like(batch.energies))
    for stage in stages:
        part = stage.inputs(empty, [0], torch.Generator().manual_seed(0))(0)
        assert part.context is not None
        assert torch.isfinite(part.features).all()
        assert torch.isfinite(part.context).all()


def test_published_units_replace_those_of_the_data() -> None:
    geometry = polar()
    family = _small(geometry, alpha=2, z=3)
    statistics = _statistics(family, geometry)
    largest = max(
        float(showers.sum())
        for group in family.grid(geometry).voxels
        for showers in make_showers(geometry, 40).energies[:, group].astype(np.float64)
    )
    assert family.coarse_unit(statistics) == pytest.approx(largest + 5e-3, rel=1e-6)
    stored = ShowerStatistics.from_mapping(statistics.to_mapping(), where="generator")
    assert family.coarse_unit(stored) == family.coarse_unit(statistics)
    published = replace(family, coarse_energy_unit="28048MeV", layer_energy_unit="65GeV")
    assert published.coarse_unit(statistics) == 28_048
    assert published.layer_unit(statistics) == 65_000
    too_small = replace(family, coarse_energy_unit="1MeV")
    with pytest.raises(DataError, match="coarse_energy_unit=auto"):
        too_small.require_statistics(geometry, statistics)


@pytest.mark.parametrize(
    ("geometry", "coarse", "message"),
    [
        (cartesian(), {"x": 3}, "join 1, 2 or 4"),
        (cartesian(), {"z": 2}, "join 1 or 3"),
        (cartesian(), {"alpha": 2}, "no axis 'alpha'"),
        (cartesian(), {"x": 1}, "nothing to refine"),
        (single_voxel(), {"z": 1}, "model=l2lflows"),
        (ragged(), {"z": 2}, "model=l2lflows"),
    ],
)
def test_detectors_that_do_not_divide_are_refused(
    geometry: Geometry, coarse: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        SuperCalo(coarse=coarse).require_describable(geometry, [INCIDENT])
    assert message in str(caught.value)


@pytest.mark.parametrize("factor", [0, -2])
def test_factors_below_one_are_refused(factor: int) -> None:
    with pytest.raises(UsageError, match=r"r: 1, alpha: 2, z: 5"):
        SuperCalo(coarse={"x": factor})
