"""Students of CaloFlow II: maps with known answers, and their losses against naive loops."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch
from nflows.transforms.permutations import Permutation
from nflows.transforms.splines.rational_quadratic import unconstrained_rational_quadratic_spline
from torch import Tensor

from calo_train.nn import incremental_inverse
from calo_train.nn.distillation import DistillationInput, DistillationTerms, DistilledFlow
from calo_train.nn.flows import MaskedSplineFlow, count_parameters
from calo_train.nn.inverse_autoregressive import (
    InverseAutoregressiveFlow,
    PackedInverseFlow,
    density_pass,
)
from calo_train.nn.stacked_flows import SingleFlow, join_flows

if TYPE_CHECKING:
    from nflows.flows import Flow

EXACT = 1e-10  # float64 sums of a few hundred terms through three blocks; 1e-13 is typical
SHAPE = MaskedSplineFlow(3, 1, 10, 4, 5.0, "alternating", 1e-3, 0.0)
GROUPS = [2, 3]
NUM_ROWS = 6


def _flow(shape: MaskedSplineFlow, seed: int, *, groups: list[int] | None = None) -> Flow:
    """A flow in float64 with curved splines."""
    torch.manual_seed(seed)
    sizes = GROUPS if groups is None else groups
    flow = shape.build(sum(sizes), 2, groups=sizes).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow


def _pair(
    terms: DistillationTerms = DistillationTerms.FULLY_GUIDED, *, dropout: float = 0.0
) -> tuple[DistilledFlow, Flow]:
    """A student of another width than its teacher, whose random permutation differs at first."""
    teacher = _flow(dataclasses.replace(SHAPE, dropout=dropout), 1)
    wider = _flow(dataclasses.replace(SHAPE, hidden_features=13), 2)
    student = InverseAutoregressiveFlow(wider)
    return DistilledFlow(student, teacher, terms=terms, data_weight=0.3), teacher


def _given(num_rows: int = NUM_ROWS, num_features: int = 5) -> DistillationInput:
    random = torch.Generator().manual_seed(4)

    def normals(columns: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(num_rows, columns, generator=random, dtype=torch.float64)

    # Some features and some noise lie in the tails.
    return DistillationInput(
        normals(num_features, 3), normals(2), normals(num_features, 3), normals(2)
    )


def _with_constant_splines(flow: Flow, biases: list[Tensor]) -> Flow:
    blocks = [step for step in flow._transform._transforms if not isinstance(step, Permutation)]
    with torch.no_grad():
        for block, bias in zip(blocks, biases, strict=True):
            block.autoregressive_net.final_layer.weight.zero_()
            block.autoregressive_net.final_layer.bias.copy_(bias)
    return flow


def _equal_pair(terms: DistillationTerms) -> tuple[DistilledFlow, Flow]:
    """Networks with constant output: equal numbers are equal maps, whichever side they read."""
    random = torch.Generator().manual_seed(5)
    biases = [torch.randn(5 * 11, generator=random, dtype=torch.float64) for _ in range(3)]
    teacher = _with_constant_splines(_flow(SHAPE, 1), biases)
    student = InverseAutoregressiveFlow(_with_constant_splines(_flow(SHAPE, 2), biases))
    return DistilledFlow(student, teacher, terms=terms), teacher


@pytest.mark.parametrize("terms", DistillationTerms)
def test_student_with_its_teachers_splines_has_no_loss(terms: DistillationTerms) -> None:
    distilled, _ = _equal_pair(terms)
    zero = torch.zeros(NUM_ROWS, dtype=torch.float64)
    for losses in (distilled.losses(_given()), distilled.judged_losses(_given())):
        torch.testing.assert_close(losses, zero, rtol=0, atol=EXACT)


def test_student_with_its_teachers_splines_draws_what_the_teacher_draws() -> None:
    distilled, teacher = _equal_pair(DistillationTerms.FULLY_GUIDED)
    given = _given()
    expected, log_det = incremental_inverse(teacher, given.base_noise, given.context)
    drawn = distilled.student(given.base_noise, given.context)
    torch.testing.assert_close(drawn.features, expected, rtol=EXACT, atol=EXACT)
    torch.testing.assert_close(-drawn.log_det, log_det, rtol=EXACT, atol=EXACT)


def _naive_chain(
    transforms: list[Any], values: Tensor, context: Tensor, *, inverse: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """States and raw parameters from features to base noise, with the splines of nflows."""
    states, parameters = [values], []
    for step in reversed(transforms) if inverse else transforms:
        if isinstance(step, Permutation):
            order = step._permutation.tolist()
            mapped = torch.empty_like(values)
            for place, source in enumerate(order):
                if inverse:
                    mapped[:, source] = values[:, place]
                else:
                    mapped[:, place] = values[:, source]
        else:
            raw = step.autoregressive_net(values, context)
            parameters.append(raw)
            raw = raw.view(len(values), values.shape[1], -1)
            bins = step.num_bins
            mapped, _ = unconstrained_rational_quadratic_spline(
                values,
                raw[..., :bins],
                raw[..., bins : 2 * bins],
                raw[..., 2 * bins :],
                inverse=inverse,
                tails="linear",
                tail_bound=step.tail_bound,
                min_bin_width=step.min_bin_width,
                min_bin_height=step.min_bin_height,
                min_derivative=step.min_derivative,
            )
        states.append(mapped)
        values = mapped
    return (states[::-1], parameters[::-1]) if inverse else (states, parameters)


def _naive_loss(
    student: list[Any], teacher: list[Any], given: DistillationInput, *, guided: bool
) -> Tensor:
    """2110.11377: each term by itself, beta = 0.3."""

    def half(one: tuple[list[Tensor], list[Tensor]], two: tuple[list[Tensor], list[Tensor]],
             end: int) -> Tensor:  # fmt: skip
        total = ((one[0][end] - two[0][end]) ** 2).sum(dim=1)
        if guided:
            for own, other in zip(one[0] + one[1], two[0] + two[1], strict=True):
                total = total + ((own - other) ** 2).sum(dim=1)
        return total

    assert given.context is not None
    assert given.base_context is not None
    of_data = _naive_chain(teacher, given.features, given.context, inverse=False)
    redrawn = _naive_chain(student, of_data[0][-1], given.context, inverse=True)
    drawn = _naive_chain(student, given.base_noise, given.base_context, inverse=True)
    judged = _naive_chain(teacher, drawn[0][0], given.base_context, inverse=False)
    return 0.7 * half(drawn, judged, -1) + 0.3 * half(redrawn, of_data, 0)


@pytest.mark.parametrize("terms", DistillationTerms)
def test_losses_and_gradients_equal_the_naive_sum_of_terms(terms: DistillationTerms) -> None:
    distilled, teacher = _pair(terms)
    found = distilled.losses(_given())
    gradients = torch.autograd.grad(found.sum(), list(distilled.parameters()))
    expected = _naive_loss(
        list(distilled.student.transforms),
        list(teacher._transform._transforms),
        _given(),
        guided=terms is DistillationTerms.FULLY_GUIDED,
    )
    expected_gradients = torch.autograd.grad(expected.sum(), list(distilled.parameters()))
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)
    for one, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("terms", DistillationTerms)
def test_gradients_equal_finite_differences(terms: DistillationTerms) -> None:
    """Through the student, and in the base half through the teacher behind it."""
    distilled, _ = _pair(terms)
    given = _given(2)
    bias = dict(distilled.named_parameters())[
        "student.transforms.2.autoregressive_net.initial_layer.bias"
    ]
    (gradient,) = torch.autograd.grad(distilled.losses(given).sum(), bias)
    step = 1e-6
    with torch.no_grad():
        for index in range(len(bias)):
            sums = []
            for shift in (step, -2 * step):
                bias[index] += shift
                sums.append(float(distilled.losses(given).sum()))
            bias[index] += step
            slope = (sums[0] - sums[1]) / (2 * step)
            assert slope == pytest.approx(float(gradient[index]), rel=1e-5, abs=1e-5)


def test_student_tells_the_density_of_what_it_draws() -> None:
    """log|det| of one pass against the Jacobian of the map."""
    distilled, _ = _pair()
    given = _given(1)
    drawn = distilled.student(given.base_noise, given.base_context)

    def draw(noise: Tensor) -> Tensor:
        features: Tensor = distilled.student(noise[None], given.base_context).features[0]
        return features

    jacobian: Tensor = torch.func.jacrev(draw)(given.base_noise[0])
    expected = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(-drawn.log_det[0], expected, rtol=EXACT, atol=EXACT)


def test_judgement_is_the_log_ratio_of_both_densities_at_the_students_draws() -> None:
    distilled, teacher = _pair()
    given = _given()
    drawn = distilled.student(given.base_noise, given.base_context)
    own = teacher._distribution.log_prob(given.base_noise) + drawn.log_det
    expected = own - teacher.log_prob(drawn.features, context=given.base_context)
    torch.testing.assert_close(distilled.judged_losses(given), expected, rtol=EXACT, atol=EXACT)


def test_density_pass_gives_the_density_of_nflows() -> None:
    _, teacher = _pair()
    given = _given()
    chain = density_pass(teacher, given.features, given.context)
    found = teacher._distribution.log_prob(chain.base) + chain.log_det
    expected = teacher.log_prob(given.features, context=given.context)
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


def test_teacher_is_neither_trained_nor_stored_nor_dropped_out() -> None:
    distilled, teacher = _pair(dropout=0.5)
    distilled.train()
    first, second = (distilled.losses(_given()) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert distilled.student.training
    assert count_parameters(distilled) == count_parameters(distilled.student)
    assert all(name.startswith("student.") for name in distilled.state_dict())
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_training_machinery_asks_the_part_for_its_own_losses() -> None:
    distilled, _ = _pair()
    ((_, joint),) = join_flows([distilled])
    assert isinstance(joint, SingleFlow)
    given = _given()
    torch.testing.assert_close(joint.losses([given])[0], distilled.losses(given))
    torch.testing.assert_close(joint.judged_losses([given])[0], distilled.judged_losses(given))
    assert joint.states()[0].keys() == distilled.state_dict().keys()


@pytest.mark.parametrize("hidden_layers", [0, 2])
@pytest.mark.parametrize("groups", [[1], [2, 3], [40]])
def test_packed_student_draws_as_the_student(hidden_layers: int, groups: list[int]) -> None:
    """More rows than a block, and hidden units in every order of degrees."""
    shape = dataclasses.replace(SHAPE, num_hidden_layers=hidden_layers, hidden_features=23)
    student = InverseAutoregressiveFlow(_flow(shape, 2, groups=groups))
    given = _given(300, sum(groups))
    packed = PackedInverseFlow(student, dtype=torch.float64, device=torch.device("cpu"))
    with torch.no_grad():
        expected = student(given.base_noise, given.base_context).features
    found = packed.inverse(given.base_noise, given.base_context)
    torch.testing.assert_close(found, expected, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize(
    ("features", "context", "hidden", "expected"),
    [
        (504, 4, 504, 50_924_160),  # CaloFlow II, 2110.11377: the code's default width
        (368, 6, 736, 56_457_088),  # CaloChallenge data set 1, photons, 2210.14245
        (533, 8, 500, 53_310_072),  # CaloChallenge data set 1, pions
    ],
)
def test_students_have_the_published_size(
    features: int, context: int, hidden: int, expected: int
) -> None:
    shape = MaskedSplineFlow(8, 1, hidden, 8, 14.0, "alternating", 1e-6, 0.05)
    with torch.device("meta"):
        flow = shape.build(features, context)
    assert count_parameters(InverseAutoregressiveFlow(flow)) == expected
