"""CaloFlow: published sizes, shares of energy, and its samplers against loops with nflows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import commands
import pytest
import torch
import yaml
from detectors import cartesian, make_showers, ragged, single_voxel, write_showers
from hypothesis import given, settings
from hypothesis import strategies as st
from nflows.transforms.permutations import Permutation

from calo_train.config_folder import conf_folder
from calo_train.errors import DataError, UsageError
from calo_train.families.caloflow import CaloFlow
from calo_train.families.caloflow.family import CaloFlowStudent
from calo_train.families.caloflow.features import energy_shares, layer_energies_of
from calo_train.families.caloflow.networks import (
    build_energy_flow,
    build_student,
    build_voxel_flow,
)
from calo_train.families.caloflow.preparation import Preparation
from calo_train.families.contracts import ShowerBatch
from calo_train.families.flow_settings import FlowSettings
from calo_train.families.settings import build_family
from calo_train.geometry import Geometry, geometry_from_mapping
from calo_train.nn.flows import count_parameters
from calo_train.nn.logit import inverse_logit
from calo_train.showers.statistics import ShowerStatistics, gather_statistics

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

SUM_RTOL = 1e-12  # float64 sums of a few dozen voxels
SHARE_RTOL = 1e-4  # features agree to 1e-13, but shares near zero are a difference from alpha
CUT = 0.02  # MeV
CPU = torch.device("cpu")


def _conf(group: str, name: str) -> dict[str, Any]:
    path = conf_folder() / group / f"{name}.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _published(detector: str, experiment: str | None) -> tuple[CaloFlow, Preparation]:
    """The family of an experiment on a detector; statistics hold what the sizes do not need."""
    mapping = _conf("model", "caloflow")
    for key, value in (_conf("experiment", experiment)["model"] if experiment else {}).items():
        mapping[key] = {**mapping[key], **value} if isinstance(value, dict) else value
    family = build_family(mapping, where="model")
    assert isinstance(family, CaloFlow)
    geometry = geometry_from_mapping(_conf("geometry", detector))
    ranges = {"incident_energy": (1e3, 1e5)}
    statistics = ShowerStatistics(10, 0, (1.0,), (1.0,), 1.0, ranges, {}, 1.0)
    return family, Preparation.of(family, geometry, statistics, 0.0)


@pytest.mark.parametrize(
    ("detector", "experiment", "sizes"),
    [
        ("calogan", None, (79_134, 37_835_280, 50_924_160)),  # 2106.05285, 2110.11377
        ("calochallenge_ds1_photons", "caloflow_ds1_photons", (97_842, 27_945_968, 56_457_088)),
        ("calochallenge_ds1_pions", "caloflow_ds1_pions", (116_550, 56_962_776, 53_310_072)),
    ],
)
def test_flows_have_the_published_sizes(
    detector: str, experiment: str | None, sizes: tuple[int, int, int]
) -> None:
    """28,043,810 and 56,554,930, 57,079,326 and 53,426,622 in the tables of 2410.21611."""
    family, preparation = _published(detector, experiment)
    with torch.device("meta"):
        built = [
            build(family, preparation)
            for build in (build_energy_flow, build_voxel_flow, build_student)
        ]
    assert tuple(map(count_parameters, built)) == sizes


def test_contexts_are_those_of_the_released_code_on_calogan() -> None:
    """log10(E_inc / 10 GeV) and log10(E_k / 100 GeV + 1e-8) + 2, from the data alone."""
    _, preparation = _published("calogan", None)
    layers = torch.tensor([[0.0, 1e3, 5e4]], dtype=torch.float64)
    conditions = {"incident_energy": torch.tensor([1e5], dtype=torch.float64)}
    expected = torch.cat([torch.ones(1, dtype=torch.float64), layers[0]])
    expected[1:] = torch.log10(layers[0] / 1e5 + 1e-8) + 2
    torch.testing.assert_close(preparation.voxel_context(layers, conditions)[0], expected)


def test_contexts_are_those_of_the_released_code_on_data_set_1() -> None:
    """log10(3 E_inc / 100 GeV) and log10(E_k / 100 GeV + 1e-8) - 1."""
    _, preparation = _published("calochallenge_ds1_photons", "caloflow_ds1_photons")
    layers = torch.tensor([[0.0, 1e3, 5e4, 2e6, 10.0]], dtype=torch.float64)
    conditions = {"incident_energy": torch.tensor([256.0], dtype=torch.float64)}
    first = torch.log10(torch.tensor([3 * 256 / 1e5], dtype=torch.float64))
    expected = torch.cat([first, torch.log10(layers[0] / 1e5 + 1e-8) - 1])
    found = preparation.voxel_context(layers, conditions)[0]
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=3, max_size=3), st.floats(1, 1e6)
)
def test_three_layers_have_the_papers_shares(energies: list[float], largest: float) -> None:
    first, second, third = energies
    shares = energy_shares(
        torch.tensor([energies], dtype=torch.float64), torch.tensor([largest]).double()
    )[0].tolist()
    total = first + second + third
    assert shares[0] == pytest.approx(total / largest)
    assert shares[1] == pytest.approx(first / total if total else 0.0)
    assert shares[2] == pytest.approx(second / (second + third) if second + third else 0.0)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 50))
def test_layer_energies_come_back_from_their_shares(seed: int, num_layers: int) -> None:
    """Energy is conserved by construction; empty layers and showers stay empty."""
    random = torch.Generator().manual_seed(seed)
    energies = torch.rand(20, num_layers, generator=random, dtype=torch.float64) ** 3
    energies[energies < 0.1] = 0
    energies[0] = 0
    largest = torch.full((20,), 2.0 * num_layers, dtype=torch.float64)
    shares = energy_shares(energies, largest)
    assert ((shares >= 0) & (shares <= 1 + SUM_RTOL)).all()
    back = layer_energies_of(shares, largest)
    torch.testing.assert_close(back, energies, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(back.sum(dim=1), energies.sum(dim=1), rtol=SUM_RTOL, atol=0)


def _small(**changes: Any) -> CaloFlow:
    energy = FlowSettings(2, 1, 8, permutation="random_after")
    voxels = FlowSettings(3, 1, 8, permutation="alternating")
    student = CaloFlowStudent(hidden_features=11, dropout=0.0)
    family = CaloFlow(energy_flow=energy, voxel_flow=voxels, student=student, tile=7)
    return replace(family, voxel_cut=f"{CUT}MeV", **changes)


def _mixed() -> Geometry:
    """Layers of several voxels around a layer of a single one."""
    single = single_voxel().layers[0]
    return Geometry("mixed", (*ragged().layers[:2], single, *ragged().layers[2:]))


def _statistics(geometry: Geometry) -> ShowerStatistics:
    return gather_statistics([make_showers(geometry, 50)], geometry)


@torch.no_grad()
def _stirred_parts(family: CaloFlow, geometry: Geometry) -> dict[str, nn.Module]:
    """Untrained parts in float64, moved off their initial weights."""
    torch.manual_seed(1)
    stages = family.stages(geometry, _statistics(geometry), 0.0)
    parts = {f"{stage.name}/0": stage.build_part(0).double().eval() for stage in stages}
    for part in parts.values():
        for parameter in part.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return parts


def _naive_student(student: Any, base: Tensor, context: Tensor) -> Tensor:
    """Blocks from the last to the first with the inverse splines of nflows."""
    values = base
    for step in reversed(student.transforms):
        if isinstance(step, Permutation):
            values = step.inverse(values)[0]
        else:
            raw = step.autoregressive_net(values, context)
            values = step._elementwise_inverse(values, raw)[0]
    return values


def _naive_shower(
    geometry: Geometry, features: Tensor, layer_energies: Tensor
) -> tuple[list[float], list[float]]:
    """One shower by plain loops, before and after the cut (2106.05285)."""
    shares = iter(inverse_logit(features).tolist())
    voxels: list[float] = []
    for layer, energy in zip(geometry.layers, layer_energies.tolist(), strict=True):
        own = [1.0] if layer.num_voxels == 1 else [next(shares) for _ in range(layer.num_voxels)]
        voxels += [energy * share / sum(own) for share in own]
    return voxels, [voxel if voxel >= CUT else 0.0 for voxel in voxels]


@pytest.mark.parametrize("sampler", ["teacher", "student"])
@torch.no_grad()
def test_samplers_equal_loops_with_nflows(sampler: str) -> None:
    geometry = _mixed()
    family, statistics = _small(sampler=sampler), _statistics(_mixed())
    parts = _stirred_parts(_small(sampler="student"), geometry)
    random = torch.Generator().manual_seed(3)
    normals = 2 * torch.randn(7, 5 + 31, generator=random, dtype=torch.float64)
    incident = torch.linspace(1e4, 1e5, 7, dtype=torch.float64)
    states = {name: part.state_dict() for name, part in parts.items()}
    built = family.build_sampler(
        geometry, statistics, 0.0, states, dtype=torch.float64, device=CPU
    )
    assert built.num_normals == 5 + geometry.num_voxels - 1
    drawn = built.draw(normals[:, : built.num_normals], {"incident_energy": incident})

    low, high = statistics.condition_range["incident_energy"]
    column = torch.log10(incident / (low * high) ** 0.5)[:, None]
    energy_flow: Any = parts["energy/0"]
    shares = inverse_logit(energy_flow._transform.inverse(normals[:, :5], column)[0])
    largest = (statistics.visible_fraction_max + geometry.num_voxels * 1e-3 / low) * incident
    layer_energies = torch.zeros(7, 5, dtype=torch.float64)
    left = shares[:, 0] * largest
    for layer in range(4):
        layer_energies[:, layer] = shares[:, layer + 1] * left
        left = left - layer_energies[:, layer]
    layer_energies[:, 4] = left
    unit = 0.1 * (low * high) ** 0.5 * statistics.visible_fraction
    context = torch.cat([column, torch.log10((layer_energies + 1e-3) / unit)], dim=1)
    base = normals[:, 5 : built.num_normals]
    if sampler == "teacher":
        teacher: Any = parts["voxels/0"]
        features = teacher._transform.inverse(base, context)[0]
    else:
        distilled: Any = parts["student/0"]
        features = _naive_student(distilled.student, base, context)
    for row in range(7):
        uncut, expected = _naive_shower(geometry, features[row], layer_energies[row])
        assert sum(uncut) == pytest.approx(float(layer_energies[row].sum()), rel=SUM_RTOL)
        torch.testing.assert_close(
            drawn.energies[row], torch.tensor(expected), rtol=SHARE_RTOL, atol=0
        )
    assert (drawn.energies == 0).any()


def _batch(geometry: Geometry, number: int = 40) -> ShowerBatch:
    showers = make_showers(geometry, number)
    conditions = {
        "incident_energy": torch.from_numpy(showers.conditions["incident_energy"]).double()
    }
    return ShowerBatch(
        torch.from_numpy(showers.energies).double(), conditions, torch.arange(number)
    )


def test_features_stay_finite_on_empty_showers_and_layers() -> None:
    """And shares of all voxels of a layer sum to one."""
    geometry = _mixed()
    batch = _batch(geometry)
    batch.energies[0] = 0
    batch.energies[1, geometry.layer_slices[1]] = 0
    stages = _small(sampler="student").stages(geometry, _statistics(geometry), 0.0)
    for stage in stages:
        part = stage.inputs(batch, [0], torch.Generator().manual_seed(1))(0)
        assert part.features.isfinite().all()
        assert part.context is not None
        assert part.context.isfinite().all()
    shares = inverse_logit(part.features)[:, :5].sum(dim=1)
    torch.testing.assert_close(shares, torch.ones_like(shares), rtol=0, atol=1e-5)


@pytest.mark.parametrize("law", ["data", "uniform"])
def test_student_sees_base_contexts_with_layer_energies_of_flow_one(law: str) -> None:
    """Energies are those of the batch, the training list, or uniform over the trained domain."""
    geometry = cartesian()
    family = _small(sampler="student")
    family.student.incident_energies = law
    *_, stage = family.stages(geometry, _statistics(geometry), 0.0)
    parts = _stirred_parts(family, geometry)
    states = {f"{name}/0": parts[f"{name}/0"].state_dict() for name in stage.needs}
    trained = stage.given(states)
    batch = _batch(geometry)

    def drawn(of: Any) -> Any:
        return of.inputs(batch, [0], torch.Generator().manual_seed(1))(0)

    part = drawn(trained)
    columns = part.base_context[:, 0]
    is_from_batch = torch.equal(columns, part.context[:, 0])
    assert is_from_batch == (law == "data")
    assert (columns.abs() <= columns.abs().max()).all()
    statistics = _statistics(geometry)
    low, high = statistics.condition_range["incident_energy"]
    energies = 10**columns * (low * high) ** 0.5
    assert ((energies >= 0.99 * low) & (energies <= 1.01 * high)).all()
    # Trained flows draw other layer energies than untrained ones for the same noise.
    assert not torch.equal(part.base_context, drawn(stage).base_context)
    torch.testing.assert_close(part.base_noise, drawn(stage).base_noise, rtol=0, atol=0)


def test_student_learns_from_the_trained_teacher() -> None:
    """A student built after `given` has the teacher's permutations and judges by its density."""
    geometry = cartesian()
    family = _small(sampler="student")
    *_, stage = family.stages(geometry, _statistics(geometry), 0.0)
    parts = _stirred_parts(family, geometry)
    states = {f"{name}/0": parts[f"{name}/0"].state_dict() for name in stage.needs}
    built: Any = stage.given(states).build_part(0).double()
    teacher: Any = parts["voxels/0"]
    pairs = zip(built.student.transforms, teacher._transform._transforms, strict=True)
    for own, other in pairs:
        if isinstance(own, Permutation):
            assert torch.equal(own._permutation, other._permutation)
    given_part = stage.inputs(_batch(geometry), [0], torch.Generator().manual_seed(1))(0)
    with torch.no_grad():
        drawn = built.student(given_part.base_noise, given_part.base_context)
        own = teacher._distribution.log_prob(given_part.base_noise) + drawn.log_det
        expected = own - teacher.log_prob(drawn.features, context=given_part.base_context)
        # The part was built in float32, so the teacher's weights are rounded.
        torch.testing.assert_close(built.judged_losses(given_part), expected, rtol=1e-5, atol=1e-5)


def test_more_visible_energy_than_the_scale_is_refused() -> None:
    geometry = cartesian()
    statistics = _statistics(geometry)
    _small().require_statistics(geometry, statistics)
    narrow = _small(largest_visible_fraction=0.5 * statistics.visible_fraction_max)
    with pytest.raises(DataError, match="largest_visible_fraction=auto"):
        narrow.require_statistics(geometry, statistics)


@torch.no_grad()
def test_single_voxel_carries_the_energy_of_flow_one() -> None:
    geometry, statistics = single_voxel(), _statistics(single_voxel())
    parts = _stirred_parts(_small(), geometry)
    states = {name: part.state_dict() for name, part in parts.items()}
    built = _small().build_sampler(
        geometry, statistics, 0.0, states, dtype=torch.float64, device=CPU
    )
    conditions = {"incident_energy": torch.full((7,), 5e4, dtype=torch.float64)}
    drawn = built.draw(torch.zeros(7, 1, dtype=torch.float64), conditions)
    assert drawn.energies.shape == (7, 1)
    assert (drawn.energies > CUT).all()


def test_single_voxels_need_no_voxel_flow_and_give_no_student() -> None:
    geometry = single_voxel()
    stages = _small().stages(geometry, _statistics(geometry), 0.0)
    assert [stage.name for stage in stages] == ["energy"]
    with pytest.raises(UsageError, match=r"model.sampler=teacher"):
        _small(sampler="student").require_describable(geometry, ["incident_energy"])


@pytest.mark.parametrize("name", ["tutor", ""])
def test_unknown_sampler_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="teacher or student"):
        _small().drawn_by(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data file and a run whose teacher alone is trained."""
    folder = tmp_path_factory.mktemp("caloflow run")
    write_showers(folder / "showers.h5", cartesian(), 80)
    done = _train(folder, "name=teacher")
    assert done.returncode == 0, done.stderr
    return folder


def _train(folder: Path, *more: str) -> Any:
    return commands.run(
        "calo-train",
        *commands.TINY_CALOFLOW,
        "dataset=native",
        "dataset.path=showers.h5",
        *more,
        cwd=folder,
    )


def _sample(folder: Path, name: str, *more: str) -> Any:
    run = f"runs/native/caloflow/{name}"
    return commands.run("calo-sample", run, "-n", "20", *more, cwd=folder)


def test_student_waits_for_its_teacher(folder: Path) -> None:
    done = _train(folder, "name=both", "model.sampler=student", "only=student")
    commands.require_message(done, 2, "needs energy/0, voxels/0", "only=energy/0")


def test_student_is_refused_where_none_was_trained(folder: Path) -> None:
    done = _sample(folder, "teacher", "--sampler", "student", "--out", "none.h5")
    commands.require_message(done, 2, "no student", "--sampler teacher")
    assert not (folder / "none.h5").exists()
