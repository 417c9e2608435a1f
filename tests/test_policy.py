"""Gaussian policies against torch.distributions, and the policy gradient against closed forms."""

import math

import pytest
import torch
from torch import Tensor, distributions
from torch.distributions import Independent, Normal

from omnitraining.policies.gaussian import (
    LOG_STD_FLOOR,
    GaussianHead,
    PolicyTargets,
    clipped_surrogate,
    kl_divergence,
    log_prob,
    policy_gradient,
    surrogate,
)
from omnitraining.tasks.reinforcement.environment import Environment
from omnitraining.tasks.reinforcement.trajectories import rollout

pytestmark = pytest.mark.usefixtures("float64")


def distribution(outputs: Tensor) -> Independent:
    mean, log_std = outputs.chunk(2, -1)
    return Independent(Normal(mean, log_std.exp()), 1)


def test_a_new_head_has_deviation_1_and_no_bias() -> None:
    head = GaussianHead(5, 3)
    mean, log_std = head(torch.zeros(2, 7, 5)).chunk(2, -1)
    assert mean.shape == (2, 7, 3) and (mean == 0).all() and (log_std == 0).all()
    assert head.mean.weight.abs().max() <= math.sqrt(6 / 8)  # Xavier: sqrt(6 / (in + out))


def test_a_head_is_its_mean_beside_its_deviations() -> None:
    head, features = GaussianHead(5, 3), torch.randn(4, 7, 5)
    torch.nn.init.normal_(head.log_std)
    mean, log_std = head(features).chunk(2, -1)
    torch.testing.assert_close(mean, head.mean(features))
    assert torch.equal(log_std, head.log_std.expand_as(log_std))


def test_the_deviation_has_a_floor() -> None:
    head = GaussianHead(2, 1)
    torch.nn.init.constant_(head.log_std, -100.0)
    assert head(torch.zeros(1, 2))[0, 1] == LOG_STD_FLOOR == pytest.approx(math.log(1e-6))


def test_log_probabilities_are_of_a_diagonal_normal_distribution() -> None:
    outputs, actions = torch.randn(4, 5, 6), torch.randn(4, 5, 3)
    torch.testing.assert_close(log_prob(outputs, actions), distribution(outputs).log_prob(actions))


def test_the_divergence_is_that_of_diagonal_normal_distributions() -> None:
    old, new = torch.randn(4, 5, 6), torch.randn(4, 5, 6)
    expected = distributions.kl_divergence(distribution(old), distribution(new)).mean()
    torch.testing.assert_close(kl_divergence(old, new), expected)
    assert kl_divergence(old, old) == 0


def test_the_surrogate_has_the_policy_gradient_at_the_old_policy() -> None:
    outputs, actions = torch.randn(3, 4, 4, requires_grad=True), torch.randn(3, 4, 2)
    old = log_prob(outputs, actions).detach()
    targets = PolicyTargets(actions, torch.randn(3, 4), old)
    gradients = [
        torch.autograd.grad(loss(outputs, targets), outputs)[0]
        for loss in (policy_gradient, surrogate)
    ]
    torch.testing.assert_close(*gradients)


def test_the_surrogate_weighs_the_actions_of_an_older_policy() -> None:
    """Its value is E_new A, whichever policy took them: here over all actions, by quadrature."""
    actions = torch.linspace(-12, 12, 4001).unsqueeze(-1)
    width = 24 / 4000
    old, new = (torch.tensor([m, s]).expand(4001, 2) for m, s in ((0.3, 0.2), (-0.5, -0.1)))
    density = log_prob(old, actions).exp() * width
    gains = -(actions.squeeze(-1) - 1).square()  # E_new of it is -((mean - 1)^2 + std^2)
    # The mean over the grid stands for the integral over actions of the old policy.
    targets = PolicyTargets(actions, gains * density * 4001, log_prob(old, actions))
    expected = 1.5**2 + math.exp(-0.1) ** 2
    assert surrogate(new, targets).item() == pytest.approx(expected, rel=1e-6)


def moved(log_ratio: Tensor, advantages: Tensor) -> tuple[Tensor, PolicyTargets]:
    """Outputs, and targets under a policy whose probabilities differ by given log ratios."""
    outputs = torch.randn(*log_ratio.shape, 4, requires_grad=True)
    actions = torch.randn(*log_ratio.shape, 2)
    old = log_prob(outputs, actions).detach() - log_ratio
    return outputs, PolicyTargets(actions, advantages, old)


def test_at_the_old_policy_the_clipped_surrogate_has_the_gradient_of_the_plain_one() -> None:
    outputs, targets = moved(torch.zeros(3, 4), torch.randn(3, 4))
    losses = surrogate(outputs, targets), clipped_surrogate(outputs, targets, 0.2)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, outputs)[0] for loss in losses))


@pytest.mark.parametrize(
    ("ratio", "advantage", "kept"),
    [
        (1.25, 1.0, False),  # likely enough already
        (1.25, -1.0, True),
        (0.75, 1.0, True),
        (0.75, -1.0, False),  # unlikely enough already
        (1.15, 1.0, True),
        (0.85, -1.0, True),
        (1.25, 0.0, False),
    ],
)
def test_beyond_the_clip_a_gain_has_no_gradient(ratio: float, advantage: float, kept: bool) -> None:
    outputs, targets = moved(torch.tensor([math.log(ratio)]), torch.tensor([advantage]))
    losses = surrogate(outputs, targets), clipped_surrogate(outputs, targets, 0.2)
    plain, clipped = (torch.autograd.grad(loss, outputs)[0] for loss in losses)
    torch.testing.assert_close(clipped, plain if kept else torch.zeros_like(plain))


def test_the_clipped_surrogate_is_its_definition_sample_by_sample() -> None:
    outputs, targets = moved(0.4 * torch.randn(5, 6), torch.randn(5, 6))
    ratios = (distribution(outputs).log_prob(targets.actions) - targets.log_probs).exp()
    terms = [
        min(r * a, min(max(r, 0.9), 1.1) * a)
        for r, a in zip(
            ratios.flatten().tolist(), targets.advantages.flatten().tolist(), strict=True
        )
    ]
    found = clipped_surrogate(outputs, targets, 0.1).item()
    assert found == pytest.approx(-sum(terms) / 30, rel=1e-12)
    assert found > surrogate(outputs, targets).item()  # a pessimistic bound


def test_targets_are_packed_into_one_tensor_and_unpacked_again() -> None:
    targets = PolicyTargets(torch.randn(3, 4, 2), torch.randn(3, 4), torch.randn(3, 4))
    packed = targets.pack()
    assert packed.shape == (3, 4, 4)
    for part, again in zip(targets, PolicyTargets.unpack(packed), strict=True):
        assert torch.equal(part, again)


class Bandit(Environment):
    """One step, one state; the reward of an action a is -(a - task)^2."""

    state_dim, action_dim, horizon, name = 1, 1, 1, "bandit"

    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        return torch.full((count,), 0.7)

    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        self.arms = tasks
        return torch.zeros(len(tasks), 1)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rewards = -(actions[:, 0] - self.arms).square()
        return torch.zeros_like(actions), rewards, torch.ones(len(actions), dtype=torch.bool)


def test_the_policy_gradient_of_a_bandit_is_its_closed_form() -> None:
    """E r = -(d^2 + s^2) with d = mean - task; derivatives -2 d and, of the log of s, -2 s^2.

    Advantages are rewards minus their mean (the linear baseline of one state), over their
    deviation: Var r = 4 d^2 s^2 + 2 s^4.
    """
    mean, log_std, arm = 0.2, -0.4, 0.7
    policy = torch.tensor([mean, log_std], requires_grad=True)
    random = torch.Generator().manual_seed(0)
    tasks = torch.full((1,), arm)
    trajectories = rollout(
        Bandit(), tasks, lambda s: policy.detach().expand(*s.shape[:2], 2), 400_000, random
    )
    _, y = trajectories.samples(0.99, 1.0)
    loss = policy_gradient(policy.expand(1, 400_000, 2), PolicyTargets.unpack(y))
    (gradient,) = torch.autograd.grad(loss, policy)
    d, variance = mean - arm, math.exp(2 * log_std)
    deviation = math.sqrt(4 * d**2 * variance + 2 * variance**2)
    assert trajectories.returns().item() == pytest.approx(-(d**2 + variance), rel=0.01)
    assert gradient.tolist() == pytest.approx(
        [2 * d / deviation, 2 * variance / deviation], rel=0.02
    )
