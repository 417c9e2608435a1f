"""Trust-region steps: conjugate gradients, the bound, and unchanged weights where no step helps."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from omnitraining.backbones import MLP
from omnitraining.errors import InputError
from omnitraining.network import Network
from omnitraining.policies.gaussian import (
    GaussianHead,
    PolicyTargets,
    kl_divergence,
    log_prob,
    surrogate,
)
from omnitraining.policies.trpo import TRPO, conjugate_gradients
from omnitraining.training import Training

pytestmark = pytest.mark.usefixtures("float64")


def test_conjugate_gradients_solve_a_positive_definite_system() -> None:
    root = torch.randn(8, 8)
    matrix, target = root @ root.T + torch.eye(8), torch.randn(8)
    found = conjugate_gradients(lambda v: matrix @ v, target, 8)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-6, atol=1e-8)


def test_conjugate_gradients_of_zero_are_zero() -> None:
    assert not conjugate_gradients(lambda v: v, torch.zeros(3), 10).any()


class Task:
    """A policy, states that it visited, and the advantages of its actions there."""

    def __init__(self) -> None:
        self.network = Network(MLP(3, (8,)), GaussianHead(8, 2))
        self.x = torch.randn(400, 3)
        with torch.no_grad():
            before = self.network(self.x)
            mean, log_std = before.chunk(2, -1)
            actions = mean + log_std.exp() * torch.randn_like(mean)
        self.before = before
        gains = actions[:, 0] * self.x[:, 0]
        self.y = PolicyTargets(actions, gains - gains.mean(), log_prob(before, actions))

    def loss(self) -> Tensor:
        return surrogate(self.network(self.x), self.y)

    def outputs(self) -> dict[str, Tensor]:
        return {"policy": self.network(self.x)}

    def change(self) -> float:
        return kl_divergence(self.before, self.network(self.x)).item()


def weights_of(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach().clone()


@pytest.mark.parametrize("bound", [0.001, 0.01, 0.1])
def test_a_step_lowers_the_loss_as_far_as_the_bound_allows(bound: float) -> None:
    task = Task()
    before = task.loss().item()
    TRPO(task.network.parameters(), bound).step(task.loss(), task.loss, task.outputs)
    assert task.loss().item() < before
    # The step is as long as a quadratic model of the divergence allows, or shortened a little.
    assert 0.5 * bound < task.change() <= bound


def test_the_first_step_tried_is_the_natural_gradient() -> None:
    """For a mean alone, of fixed deviation 1, the Fisher matrix is E x x^T."""
    layer = nn.Linear(2, 1, bias=False)
    x, actions = torch.randn(300, 2), torch.randn(300, 1)
    gains = torch.randn(300)
    old = torch.cat([layer(x).detach(), torch.zeros(300, 1)], -1)
    y = PolicyTargets(actions, gains, log_prob(old, actions))

    def outputs() -> Tensor:
        return torch.cat([layer(x), torch.zeros(300, 1)], -1)

    gradient = torch.autograd.grad(surrogate(outputs(), y), layer.weight)[0].flatten()
    natural = torch.linalg.solve(x.T @ x / 300 + TRPO.damping * torch.eye(2), gradient)
    bound, before = 1e-4, layer.weight.detach().flatten().clone()
    TRPO(layer.parameters(), bound).step(
        surrogate(outputs(), y), lambda: surrogate(outputs(), y), lambda: {"policy": outputs()}
    )
    step = before - layer.weight.detach().flatten()
    length = (2 * bound / (natural @ gradient)).sqrt()
    backtracks = torch.log((step @ step).sqrt() / (length * natural.norm())) / torch.log(
        torch.tensor(TRPO.backtrack_ratio)
    )
    torch.testing.assert_close(step / step.norm(), natural / natural.norm())
    assert backtracks.item() == pytest.approx(round(backtracks.item()), abs=1e-4)
    assert 0 <= round(backtracks.item()) <= 2


def test_weights_stay_where_nothing_helps() -> None:
    task = Task()
    before = weights_of(task.network)
    calls = 0

    def loss() -> Tensor:  # higher at all other weights
        nonlocal calls
        calls += 1
        return task.loss() + 10

    TRPO(task.network.parameters(), 0.01).step(task.loss(), loss, task.outputs)
    assert calls == TRPO.max_backtracks
    assert torch.equal(weights_of(task.network), before)


def test_weights_stay_where_the_loss_is_flat() -> None:
    task = Task()
    task.y.advantages.zero_()  # no advantage in anything
    before = weights_of(task.network)
    TRPO(task.network.parameters(), 0.01).step(task.loss(), task.loss, task.outputs)
    assert torch.equal(weights_of(task.network), before)


def test_the_bound_is_on_the_mean_over_policies() -> None:
    first, second = Task(), Task()

    def both(part: Callable[[Task], Tensor]) -> Tensor:
        return part(first) + part(second)

    parameters = [*first.network.parameters(), *second.network.parameters()]
    TRPO(parameters, 0.01).step(
        both(Task.loss),
        lambda: both(Task.loss),
        lambda: {"first": first.outputs()["policy"], "second": second.outputs()["policy"]},
    )
    assert 0.005 < (first.change() + second.change()) / 2 <= 0.01


def test_only_policies_are_trained_by_it() -> None:
    training = Training(optimizer="trpo", lr=0.01)
    assert isinstance(training.make_optimizer(Task().network), TRPO)
    with pytest.raises(InputError, match=r"training.optimizer is 'trpo', which is for policies"):
        training.make_optimizer(nn.Linear(2, 2))
