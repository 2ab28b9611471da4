"""iCaloFlow: published sizes, what its flows see, and drawing layer after layer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from detectors import cartesian, make_showers, polar, ragged, single_voxel
from omegaconf import OmegaConf

from calo_train.config_folder import conf_folder
from calo_train.errors import DataError, UsageError
from calo_train.families.contracts import ShowerBatch
from calo_train.families.flow_settings import FlowSettings
from calo_train.families.icaloflow import ICaloFlow
from calo_train.families.icaloflow.features import incident_energy_context
from calo_train.families.icaloflow.networks import (
    build_energy_flow,
    build_first_layer_flow,
    build_first_layer_student,
    build_next_layers_flow,
    build_next_layers_student,
)
from calo_train.families.settings import build_family
from calo_train.families.students import StudentSettings
from calo_train.geometry import Geometry, geometry_from_mapping
from calo_train.nn.distillation import DistillationInput, DistilledFlow
from calo_train.nn.flows import count_parameters
from calo_train.nn.logit import inverse_logit, logit
from calo_train.showers.statistics import gather_statistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nflows.flows import Flow
    from torch import Tensor

    from calo_train.families.contracts import PartInput, Stage
    from calo_train.showers.statistics import ShowerStatistics

THRESHOLD = 0.05
FLOAT32_RTOL = 1e-6
SMALL = FlowSettings(num_blocks=3, hidden_features=8, permutation="alternating")


def _conf(group: str, name: str) -> dict[str, object]:
    path = conf_folder() / group / f"{name}.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _published(experiment: str | None = None) -> ICaloFlow:
    """The family of the yaml, with what an experiment changes."""
    changes = {} if experiment is None else {"model": _conf("experiment", experiment)["model"]}
    values = OmegaConf.merge({"model": _conf("model", "icaloflow")}, changes)
    family = build_family(OmegaConf.to_container(values)["model"], where="model")
    assert isinstance(family, ICaloFlow)
    return family


def _sizes(family: ICaloFlow, detector: str) -> dict[str, int]:
    """Count the weights of each flow and student, without memory for them."""
    geometry = geometry_from_mapping(_conf("geometry", detector))
    with torch.device("meta"):
        return {
            build.__name__.removeprefix("build_"): count_parameters(build(family, geometry, 1))
            for build in (
                build_energy_flow,
                build_first_layer_flow,
                build_next_layers_flow,
                build_first_layer_student,
                build_next_layers_student,
            )
        }


def _teacher_and_student(sizes: Mapping[str, int]) -> tuple[int, int]:
    """Sum what draws; Flow-1 has no student."""
    further = ("first_layer", "next_layers")
    teacher = sum(sizes[f"{name}_flow"] for name in further)
    student = sum(sizes[f"{name}_student"] for name in further)
    return sizes["energy_flow"] + teacher, sizes["energy_flow"] + student


def test_flows_on_data_set_2_have_the_published_sizes() -> None:
    """2410.21611, table of weights; the single ones by nflows."""
    sizes = _sizes(_published(), "calochallenge_ds2")
    assert list(sizes.values()) == [2_752_600, 8_165_248, 8_552_320, 8_165_248, 13_601_664]
    assert _teacher_and_student(sizes) == (19_470_168, 24_519_512)


def test_flows_on_data_set_3_have_the_published_sizes() -> None:
    """2410.21611: teacher and student are equally large."""
    sizes = _sizes(_published("icaloflow_ds3"), "calochallenge_ds3")
    assert list(sizes.values())[:3] == [2_752_600, 45_463_264, 46_872_288]
    assert _teacher_and_student(sizes) == (95_088_152, 95_088_152)


def test_incident_energy_context_spans_the_challenge() -> None:
    context = incident_energy_context(torch.tensor([1e3, 1e6]))
    torch.testing.assert_close(context, torch.tensor([-1.5, 1.5]))


def _small(**changes: object) -> ICaloFlow:
    students = StudentSettings(hidden_features=12)
    family = ICaloFlow("teacher", SMALL, SMALL, SMALL, students, students, tile=7)
    return replace(family, **changes)  # type: ignore[arg-type]


def _statistics(geometry: Geometry) -> ShowerStatistics:
    return gather_statistics([make_showers(geometry, 50)], geometry)


def _stages(family: ICaloFlow, geometry: Geometry) -> dict[str, Stage]:
    stages = family.stages(geometry, _statistics(geometry), THRESHOLD)
    return {stage.name: stage for stage in stages}


def _input(stage: Stage, batch: ShowerBatch) -> PartInput | DistillationInput:
    return stage.inputs(batch, [0], torch.Generator().manual_seed(4))(0)


def _inputs(
    family: ICaloFlow, geometry: Geometry, batch: ShowerBatch
) -> dict[str, PartInput | DistillationInput]:
    return {name: _input(stage, batch) for name, stage in _stages(family, geometry).items()}


def _batch(geometry: Geometry, number: int) -> ShowerBatch:
    showers = make_showers(geometry, number, seed=5)
    energies = torch.from_numpy(showers.energies).double()
    energies[1] = 0
    incident = torch.from_numpy(showers.conditions["incident_energy"]).double()
    return ShowerBatch(energies, {"incident_energy": incident}, torch.arange(number))


def test_flows_see_shares_energies_and_the_layer_before() -> None:
    """Recomputed shower by shower, without noise on voxels or layers worth seeing."""
    geometry = polar()
    family = _small(layers_per_shower=None, voxel_noise="1e-9keV", layer_noise="1e-9keV")
    batch = _batch(geometry, 6)
    inputs = _inputs(family, geometry, batch)
    unit = 1.1 * max(_statistics(geometry).layer_energy_max)
    rows_of_next = inputs["next_layers"].rows_per_shower
    assert rows_of_next == 2
    for row in (0, 2, 3, 4, 5):  # shower 1 is empty
        seen = batch.energies[row].clone()
        seen[seen < THRESHOLD] = 0
        layers = seen.view(3, 8)
        e = math.log10(float(batch.conditions["incident_energy"][row])) - 4.5
        sums = logit(layers.sum(dim=1) / unit)
        shares = [logit(layer / layer.sum()) for layer in layers]
        torch.testing.assert_close(inputs["energy"].features[row], sums, rtol=1e-5, atol=1e-5)
        first = inputs["first_layer"]
        torch.testing.assert_close(first.features[row], shares[0], rtol=0, atol=1e-4)
        assert first.context is not None
        expected = torch.tensor([e, float(sums[0]) / 4], dtype=torch.float64)
        torch.testing.assert_close(first.context[row], expected, rtol=1e-5, atol=1e-5)
        further = inputs["next_layers"]
        assert further.context is not None
        pairs = slice(2 * row, 2 * row + 2)
        found = {int(one[-2:].argmax()) + 1: (x, one) for x, one in
                 zip(further.features[pairs], further.context[pairs], strict=True)}  # fmt: skip
        for layer in (1, 2):
            features, context = found[layer]
            torch.testing.assert_close(features, shares[layer], rtol=0, atol=1e-4)
            one_hot = [float(layer == 1), float(layer == 2)]
            own = torch.tensor([e, *sums[[layer, layer - 1]].tolist()], dtype=torch.float64)
            expected = torch.cat([own, shares[layer - 1], own.new_tensor(one_hot)])
            torch.testing.assert_close(context, expected, rtol=1e-5, atol=1e-4)


def test_a_batch_holds_different_layers_of_each_shower() -> None:
    geometry, family = cartesian(), _small(layers_per_shower=1)
    part = _inputs(family, geometry, _batch(geometry, 200))["next_layers"]
    assert part.context is not None
    assert part.features.shape == (200, 16)
    counts = part.context[:, -2:].sum(dim=0)
    assert counts.sum() == 200
    assert counts.min() > 60  # half each on average; 5.7 standard deviations


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_showers_give_finite_features(dtype: torch.dtype) -> None:
    geometry = cartesian()
    batch = _batch(geometry, 6)
    empty = ShowerBatch(
        torch.zeros_like(batch.energies, dtype=dtype),
        {name: values.to(dtype) for name, values in batch.conditions.items()},
        batch.rows,
    )
    for part in _inputs(_small(), geometry, empty).values():
        assert part.context is not None
        assert torch.isfinite(part.features).all()
        assert torch.isfinite(part.context).all()


@torch.no_grad()
def _stirred(family: ICaloFlow, geometry: Geometry) -> dict[str, Any]:
    """Untrained flows in float64, moved off their initial weights, which map noise to itself."""
    torch.manual_seed(1)
    flows = {}
    for name, stage in _stages(family, geometry).items():
        flow = stage.build_part(0).double().eval()
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        flows[f"{name}/0"] = flow
    return flows


def _drawn(
    family: ICaloFlow,
    geometry: Geometry,
    parts: Mapping[str, Mapping[str, Tensor]],
    normals: Tensor,
    incident: Tensor,
) -> Tensor:
    sampler = family.build_sampler(
        geometry,
        _statistics(geometry),
        THRESHOLD,
        parts,
        dtype=torch.float64,
        device=torch.device("cpu"),
    )
    assert sampler.num_normals == normals.shape[1]
    return sampler.draw(normals, {"incident_energy": incident}).energies


def _features_of(part: Flow | DistilledFlow, base: Tensor, context: Tensor) -> Tensor:
    """Draw features by nflows' own inverse, or by the student as it trains."""
    if isinstance(part, DistilledFlow):
        return part.student(base, context).features
    features: Tensor = part._transform.inverse(base, context)[0]
    return features


@torch.no_grad()
@pytest.mark.parametrize("sampler", ["teacher", "student"])
def test_sampler_equals_a_loop_over_layers(sampler: str) -> None:
    geometry, family = cartesian(), _small(output_threshold="0.08MeV", sampler=sampler)
    flows = _stirred(family, geometry)
    random = torch.Generator().manual_seed(3)
    normals = 2 * torch.randn(7, 3 + 48 + 32, generator=random, dtype=torch.float64)
    incident = torch.linspace(1e4, 1e5, 7, dtype=torch.float64)
    parts = {name: flow.state_dict() for name, flow in flows.items()}
    found = _drawn(family, geometry, parts, normals, incident).view(7, 3, 16)

    unit = 1.1 * max(_statistics(geometry).layer_energy_max)
    e = (torch.log10(incident) - 4.5)[:, None]
    base, noise = normals[:, 3:51].view(7, 3, 16), normals[:, 51:].view(7, 2, 16)
    energies = unit * inverse_logit(_features_of(flows["energy/0"], normals[:, :3], e))
    energies[energies < 0.08] = 0
    lam = logit(energies / unit)
    context = torch.cat([e, lam[:, :1] / 4], dim=1)
    for layer in range(3):
        kind = "next_layers" if layer else "first_layer"
        part = flows[f"{kind}/0" if sampler == "teacher" else f"{kind}_student/0"]
        features = _features_of(part, base[:, layer], context)
        voxels = inverse_logit(features) * energies[:, layer, None]
        voxels[voxels < 0.08] = 0
        torch.testing.assert_close(found[:, layer], voxels.float(), rtol=1e-4, atol=0)
        if layer == 2:
            break
        uniform = 0.5 * (1 + torch.erf(noise[:, layer] / math.sqrt(2)))
        noisy = voxels + 0.005 * uniform
        previous = logit(noisy / noisy.sum(dim=1, keepdim=True))
        one_hot = torch.zeros(7, 2, dtype=torch.float64)
        one_hot[:, layer] = 1
        both = lam[:, [layer + 1, layer]]
        context = torch.cat([e, both, previous, one_hot], dim=1)
    assert (found > 0).any()
    assert (found == 0).any()


@torch.no_grad()
@pytest.mark.parametrize("name", ["energy/0", "first_layer/0", "next_layers/0"])
def test_flows_undo_their_own_drawing(name: str) -> None:
    """forward(inverse(z)) is z in float64, by the packed inverse and nflows' forward pass."""
    from calo_train.nn import pack

    flow = _stirred(_small(), cartesian())[name]
    num_features = flow._distribution._shape[0]
    num_context = flow._transform._transforms[0].autoregressive_net.context_layer.in_features
    random = torch.Generator().manual_seed(6)
    base = torch.randn(50, num_features, generator=random, dtype=torch.float64)
    context = torch.randn(50, num_context, generator=random, dtype=torch.float64)
    features = pack(flow).inverse(base, context)
    torch.testing.assert_close(flow.transform_to_noise(features, context), base)


@torch.no_grad()
def test_one_layer_needs_no_flow_for_further_ones() -> None:
    layer = cartesian().layers[0]
    geometry, family = Geometry("one layer", (layer,)), _small()
    flows = _stirred(family, geometry)
    assert list(flows) == ["energy/0", "first_layer/0"]
    parts = {name: flow.state_dict() for name, flow in flows.items()}
    normals = torch.randn(7, 17, generator=torch.Generator().manual_seed(1)).double()
    energies = _drawn(family, geometry, parts, normals, torch.full((7,), 5e4).double())
    assert torch.isfinite(energies).all()


@torch.no_grad()
def test_layers_of_one_voxel_are_their_energies() -> None:
    geometry, family = single_voxel(), _small()
    flows = _stirred(family, geometry)
    assert list(flows) == ["energy/0"]
    parts = {name: flow.state_dict() for name, flow in flows.items()}
    normals = torch.zeros(7, 1, dtype=torch.float64)
    energies = _drawn(family, geometry, parts, normals, torch.full((7,), 5e4).double())
    assert energies.shape == (7, 1)
    assert (energies > 0).all()


def test_layers_of_different_grids_are_refused_with_families_that_take_them() -> None:
    with pytest.raises(UsageError, match="layer 1") as refused:
        _small().require_describable(ragged(), ["incident_energy"])
    assert "model=caloflow" in refused.value.do
    assert "model=l2lflows" in refused.value.do
    _small().require_describable(polar(), ["incident_energy"])


def test_a_unit_below_the_layers_of_the_data_is_refused() -> None:
    statistics = _statistics(cartesian())
    _small().require_statistics(cartesian(), statistics)
    _small(layer_energy_unit="65GeV").require_statistics(cartesian(), statistics)
    with pytest.raises(DataError, match="layer_energy_unit"):
        _small(layer_energy_unit="1MeV").require_statistics(cartesian(), statistics)


@pytest.mark.parametrize("teacher", ["first_layer", "next_layers"])
def test_students_learn_from_their_teacher_on_its_own_contexts(teacher: str) -> None:
    geometry, family = cartesian(), _small(sampler="student")
    stages, batch = _stages(family, geometry), _batch(geometry, 6)
    stage = stages[f"{teacher}_student"]
    assert stage.needs == (teacher,)
    seen, given = _input(stages[teacher], batch), _input(stage, batch)
    assert isinstance(given, DistillationInput)
    torch.testing.assert_close(given.features, seen.features)
    assert given.context is given.base_context
    torch.testing.assert_close(given.context, seen.context)
    assert given.rows_per_shower == seen.rows_per_shower
    torch.manual_seed(8)
    trained = stages[teacher].build_part(0)
    part = stage.given({f"{teacher}/0": trained.state_dict()}).build_part(0)
    assert isinstance(part, DistilledFlow)
    judged = part._teacher(given.features.float(), given.context.float())
    expected = trained.transform_to_noise(given.features.float(), given.context.float())
    torch.testing.assert_close(judged.base, expected, rtol=1e-4, atol=1e-4)
    assert all(name.startswith("student.") for name in part.state_dict())


def test_a_student_that_was_not_trained_cannot_draw() -> None:
    geometry, family = polar(), _small()
    parts = {name: flow.state_dict() for name, flow in _stirred(family, geometry).items()}
    normals = torch.zeros(7, 3 + 24 + 16, dtype=torch.float64)
    with pytest.raises(UsageError, match="no student") as refused:
        _drawn(family.drawn_by("student"), geometry, parts, normals, normals[:, 0] + 5e4)
    assert "--sampler teacher" in refused.value.do
    with pytest.raises(UsageError, match="unknown"):
        family.drawn_by("pupil")


def test_one_voxel_a_layer_has_nothing_to_distil() -> None:
    with pytest.raises(UsageError, match="distil"):
        _small(sampler="student").require_describable(single_voxel(), ["incident_energy"])
