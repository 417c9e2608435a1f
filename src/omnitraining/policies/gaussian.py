"""Gaussian policies: what a head puts out, how likely actions are, and eq. 18 as a loss."""

import math

import torch
from torch import Tensor, nn

LOG_STD_FLOOR = math.log(1e-6)


class GaussianHead(nn.Module):
    """Mean and log standard deviation of an action; the deviation is the same in every state.

    Args:
        features: size D of the features.
        actions: size A of an action.

    Shape: [..., D] -> [..., 2 A], means before log standard deviations. These start at 0.
    """

    def __init__(self, features: int, actions: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, actions)
        nn.init.xavier_uniform_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)
        self.log_std = nn.Parameter(torch.zeros(actions))

    def forward(self, features: Tensor) -> Tensor:
        return gaussian(self.mean(features), self.log_std)


def gaussian(mean: Tensor, log_std: Tensor) -> Tensor:
    """Outputs [..., 2 A] of a policy: means of actions [..., A] beside their log deviations."""
    return torch.cat([mean, log_std.clamp(min=LOG_STD_FLOOR).expand_as(mean)], -1)


def log_probability(outputs: Tensor, actions: Tensor) -> Tensor:
    """Log pi(a | s) [...] of actions [..., A] under the outputs [..., 2 A] of a policy."""
    mean, log_std = outputs.chunk(2, -1)
    distance = (actions - mean) * (-log_std).exp()
    return -(0.5 * distance.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


def divergence(old: Tensor, new: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence KL(old || new) of policies with outputs [..., 2 A]."""
    mean, log_std = old.chunk(2, -1)
    new_mean, new_log_std = new.chunk(2, -1)
    ratio = (2 * (log_std - new_log_std)).exp()
    shift = (mean - new_mean).square() * (-2 * new_log_std).exp()
    return (0.5 * (ratio + shift - 1) + new_log_std - log_std).sum(-1).mean()


# What a policy learns from: the targets of its outputs, as labels are the targets of logits.


def policy_targets(actions: Tensor, advantages: Tensor, log_probabilities: Tensor) -> Tensor:
    """Targets [..., A + 2] of visited states.

    Args:
        actions: what was done [..., A].
        advantages: how much better that was than expected [...]; 0 in states after the end.
        log_probabilities: of the actions under the policy that acted [...].
    """
    return torch.cat([actions, advantages.unsqueeze(-1), log_probabilities.unsqueeze(-1)], -1)


# Eq. 18: grad l_pre = E sum_t grad log pi(a_t | s_t) A(s_t, a_t)
def policy_gradient(outputs: Tensor, targets: Tensor) -> Tensor:
    """REINFORCE: -E log pi(a | s) A, a loss to descend.

    Args:
        outputs: of the policy in the visited states [..., 2 A].
        targets: of `policy_targets` [..., A + 2].
    """
    actions, advantages = targets[..., :-2], targets[..., -2]
    return -(log_probability(outputs, actions) * advantages).mean()


def surrogate(outputs: Tensor, targets: Tensor) -> Tensor:
    """-E [pi(a | s) / pi_old(a | s)] A: eq. 18 with actions of an older policy pi_old.

    Where both are the same policy its gradient is that of `policy_gradient`; elsewhere it still
    estimates how good the policy is, which a line search needs (TRPO, Schulman et al. 2015).
    """
    actions, advantages, old = targets[..., :-2], targets[..., -2], targets[..., -1]
    return -((log_probability(outputs, actions) - old).exp() * advantages).mean()
