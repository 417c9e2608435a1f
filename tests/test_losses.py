"""The loss functions against one-sample-at-a-time versions and hand values."""

import pytest
import torch

from omnitraining import losses
from tests.reference import equations

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("shape", [(7, 4), (3, 7, 4)])
def test_cross_entropy_is_the_mean_over_all_samples(shape: tuple[int, ...]) -> None:
    logits, labels = torch.randn(shape), torch.randint(4, shape[:-1])
    expected = equations.cross_entropy(logits.reshape(-1, 4), labels.flatten())
    assert losses.cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-12)


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_the_classes() -> None:
    loss = losses.cross_entropy(torch.zeros(2, 8), torch.tensor([0, 5]))
    assert loss.item() == pytest.approx(3 * torch.tensor(2.0).log().item(), rel=1e-12)


@pytest.mark.parametrize("loss", [losses.squared_error, losses.distillation])
def test_squared_losses_are_means_over_samples_and_outputs(loss: object) -> None:
    first, second = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    expected = equations.mean_square(first, second)
    assert loss(first, second).item() == pytest.approx(expected, rel=1e-12)
    assert loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]])) == 2.0


def test_probability_distillation_sums_over_classes_and_ignores_a_common_shift() -> None:
    student, teacher = torch.randn(6, 4), torch.randn(6, 4)
    rows = zip(student.tolist(), teacher.tolist(), strict=True)
    squares = [
        sum((a - b) ** 2 for a, b in zip(*map(equations.softmax, row), strict=True)) for row in rows
    ]
    value = losses.probability_distillation(student, teacher)
    assert value.item() == pytest.approx(sum(squares) / 6, rel=1e-12)
    shifted = losses.probability_distillation(student + torch.randn(6, 1), teacher)
    assert shifted.item() == pytest.approx(value.item(), rel=1e-12)


@pytest.mark.parametrize("loss", [losses.distillation, losses.probability_distillation])
def test_distillation_gives_the_teacher_no_gradient_and_vanishes_at_equality(loss: object) -> None:
    student, teacher = torch.randn(2, 6, 4).unbind()
    student.requires_grad_(), teacher.requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
    value = loss(student, student)
    (slope,) = torch.autograd.grad(value, student)
    assert value == 0 and torch.equal(slope, torch.zeros_like(slope))


def test_sums_have_the_paper_s_weights() -> None:
    a, b, c = torch.tensor([2.0, 5.0, 11.0]).unbind()
    assert losses.joint_loss(a, b) == 7  # eq. 7
    assert losses.regularized_loss(a, b, 3.0) == 17  # eq. 11 and 14
    assert losses.omni_loss(a, b, c) == 18  # eq. 15
