"""The EMA teacher (eq. 9)."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from omnitraining.backbones import Conv4
from omnitraining.losses import distillation
from omnitraining.network import Network
from omnitraining.omninet import OmniNet
from omnitraining.teacher import Teacher
from tests.reference.equations import moving_average

pytestmark = pytest.mark.usefixtures("float64")


def student() -> Network:
    return Network(Conv4(1, 4), nn.Linear(4, 3))


def disturb(module: nn.Module) -> None:
    """What a step of training does: other weights, other running statistics."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    module(torch.randn(4, 1, 16, 16))


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.99])
def test_after_updates_the_teacher_is_the_moving_average_of_all_students(alpha: float) -> None:
    model = student()
    teacher = Teacher(model, alpha)
    history = [[p.detach().clone() for p in model.parameters()]]
    for _ in range(5):
        disturb(model)
        teacher.update()
        history.append([p.detach().clone() for p in model.parameters()])
    values = zip(*history, strict=True)
    for mine, path in zip(teacher.model.parameters(), values, strict=True):
        expected = moving_average(list(path), alpha)
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


def test_at_alpha_0_the_teacher_is_the_student() -> None:
    model = student()
    teacher = Teacher(model, alpha=0.0)
    disturb(model)
    teacher.update()
    mine, theirs = teacher.model.state_dict(), model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_running_statistics_are_copied() -> None:
    model = student()
    teacher = Teacher(model, alpha=0.99)
    disturb(model)
    before = model.backbone[1].running_mean.clone()
    teacher.update()
    mine = dict(teacher.model.named_buffers())
    assert mine["backbone.1.num_batches_tracked"] == 1
    for name, buffer in model.named_buffers():
        assert torch.equal(mine[name], buffer)
    teacher.model(torch.randn(4, 1, 16, 16))
    assert torch.equal(model.backbone[1].running_mean, before)


def test_the_teacher_starts_equal_and_stays_when_the_student_moves() -> None:
    model = student()
    before = copy.deepcopy(model.state_dict())
    teacher = Teacher(model)
    disturb(model)
    for key, tensor in teacher.model.state_dict().items():
        assert torch.equal(tensor, before[key])


def test_self_distillation_and_its_gradient_are_zero_at_equal_weights() -> None:
    """In training mode too, where both normalize by the batch and not by running statistics."""
    model = student().train()
    teacher = Teacher(model).train()
    model.backbone[1].running_mean.add_(1.0)
    x = torch.randn(4, 1, 16, 16)
    loss = distillation(model(x), teacher.model(x))
    loss.backward()
    assert loss == 0
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in model.parameters())


def test_no_gradient_reaches_the_teacher() -> None:
    model = student()
    teacher = Teacher(model)
    disturb(model)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in model.parameters())
    x = torch.randn(4, 1, 16, 16)
    distillation(model(x), teacher.model(x)).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in model.parameters())


def test_the_teacher_of_an_omni_net_shares_its_joint_weights_once() -> None:
    net = OmniNet(Conv4(1, 4))
    teacher = Teacher(net, alpha=0.5)
    clone = teacher.model
    assert clone.pre[0].parametrizations.weight.original is clone.joint[0].weight
    assert len([*clone.parameters()]) == len([*net.parameters()])
    before = clone.joint[0].weight.clone()
    nn.init.normal_(net.joint[0].weight)
    teacher.update()  # once per update, not once per flow
    torch.testing.assert_close(clone.joint[0].weight, (before + net.joint[0].weight) / 2)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)),
        lambda: nn.TransformerEncoderLayer(8, 2, 8, dropout=0.5, batch_first=True),
        lambda: nn.GRU(8, 8, num_layers=2, dropout=0.5),
    ],
)
def test_dropout_of_any_kind_is_off_in_the_teacher(layer: Callable[[], nn.Module]) -> None:
    teacher, x = Teacher(layer()).train(), torch.randn(4, 3, 8)
    first, second = (teacher.model(x) for _ in range(2))
    if isinstance(first, tuple):
        first, second = first[0], second[0]
    assert torch.equal(first, second)


def test_the_teacher_in_training_normalizes_by_its_batch_and_in_evaluation_does_not() -> None:
    teacher = Teacher(nn.Sequential(nn.BatchNorm2d(2)))
    x = 3 + torch.randn(8, 2, 4, 4)
    assert teacher.train().model(x).mean().abs() < 1e-6
    teacher.model[0].reset_running_stats()
    assert teacher.eval().model(x).mean() > 2.5
