"""Gaussian policies and their losses: the policy gradient (eq. 18), TRPO's surrogate and PPO's."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

LOG_STD_FLOOR = math.log(1e-6)


class GaussianHead(nn.Module):
    """Mean and log standard deviation of an action; the deviation is the same in all states.

    Args:
        features: size D of the features.
        actions: size A of an action.

    Shape: [..., D] -> [..., 2 A], means before log standard deviations. These start at 0.

    Example:
        >>> import torch
        >>> mean, log_std = GaussianHead(8, 2)(torch.zeros(5, 8)).chunk(2, -1)
        >>> mean.shape, log_std.exp().unique().tolist()
        (torch.Size([5, 2]), [1.0])
    """

    def __init__(self, features: int, actions: int) -> None:
        """Make the layer of the mean, and log standard deviations of 0."""
        super().__init__()
        self.mean = nn.Linear(features, actions)
        nn.init.xavier_uniform_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)
        self.log_std = nn.Parameter(torch.zeros(actions))

    def forward(self, features: Tensor) -> Tensor:
        """Means and log standard deviations [..., 2 A] of features [..., D]."""
        own = {
            "mean.weight": self.mean.weight,
            "mean.bias": self.mean.bias,
            "log_std": self.log_std,
        }
        return functional.linear(features, *self.as_linear(own))

    def as_linear(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The head as one linear layer: log standard deviations are biases of zero weights."""
        weight, bias, log_std = (weights[name] for name in ("mean.weight", "mean.bias", "log_std"))
        return (
            torch.cat([weight, torch.zeros_like(weight)], -2),
            torch.cat([bias, log_std.clamp(min=LOG_STD_FLOOR)], -1),
        )


def log_prob(outputs: Tensor, actions: Tensor) -> Tensor:
    """Log pi(a | s) [...] of actions [..., A] under policy outputs [..., 2 A]."""
    mean, log_std = outputs.chunk(2, -1)
    distance = (actions - mean) * (-log_std).exp()
    return -(0.5 * distance.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


def kl_divergence(old: Tensor, new: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence KL(old || new) of policy outputs [..., 2 A]."""
    mean, log_std = old.chunk(2, -1)
    new_mean, new_log_std = new.chunk(2, -1)
    ratio = (2 * (log_std - new_log_std)).exp()
    shift = (mean - new_mean).square() * (-2 * new_log_std).exp()
    return (0.5 * (ratio + shift - 1) + new_log_std - log_std).sum(-1).mean()


class PolicyTargets(NamedTuple):
    """Targets of a policy in the states of its trajectories.

    Batches and episodes hold it as one tensor, in place of labels: `pack` and `unpack`.

    Attributes:
        actions: actions that were taken [..., A].
        advantages: estimated advantages of these [...]; 0 after the end of a trajectory.
        log_probs: their log probabilities under the policy that took them [...].

    Example:
        >>> import torch
        >>> targets = PolicyTargets(torch.zeros(5, 2), torch.ones(5), torch.zeros(5))
        >>> targets.pack().shape
        torch.Size([5, 4])
        >>> PolicyTargets.unpack(targets.pack()).advantages.tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """

    actions: Tensor
    advantages: Tensor
    log_probs: Tensor

    def pack(self) -> Tensor:
        """The same as one tensor [..., A + 2]."""
        return torch.cat(
            [self.actions, self.advantages.unsqueeze(-1), self.log_probs.unsqueeze(-1)], -1
        )

    @classmethod
    def unpack(cls, packed: Tensor) -> "PolicyTargets":
        """The parts of a tensor [..., A + 2], as views."""
        return cls(packed[..., :-2], packed[..., -2], packed[..., -1])


# Eq. 18: grad l_pre = E sum_t grad log pi(a_t | s_t) A(s_t, a_t)
def policy_gradient(outputs: Tensor, targets: PolicyTargets) -> Tensor:
    """The loss -E log pi(a | s) A, whose gradient is the gradient of eq. 18 (REINFORCE).

    Args:
        outputs: of the policy in the visited states [..., 2 A].
        targets: actions and advantages there.
    """
    return -(log_prob(outputs, targets.actions) * targets.advantages).mean()


def surrogate(outputs: Tensor, targets: PolicyTargets) -> Tensor:
    """-E [pi(a | s) / pi_old(a | s)] A: eq. 18 with actions of an older policy pi_old.

    At pi = pi_old its gradient equals the gradient of `policy_gradient`. Elsewhere its value still
    estimates the return of the policy, which a line search needs (Schulman et al. 2015, "Trust
    region policy optimization", eq. 14).

    Args:
        outputs: of the policy in the visited states [..., 2 A].
        targets: actions and advantages there, with the log probabilities under pi_old.
    """
    return -(probability_ratio(outputs, targets) * targets.advantages).mean()


def clipped_surrogate(outputs: Tensor, targets: PolicyTargets, epsilon: float) -> Tensor:
    """-E min(r A, clip(r, 1 - epsilon, 1 + epsilon) A), with r the `probability_ratio`.

    Where all ratios are within epsilon of 1, it is `surrogate`. Beyond, it does not reward a
    policy for moving further away from pi_old, so that several updates can use the same
    trajectories (Schulman et al. 2017, "Proximal policy optimization algorithms", eq. 7,
    https://arxiv.org/abs/1707.06347).

    Args:
        outputs: of the policy in the visited states [..., 2 A].
        targets: actions and advantages there, with the log probabilities under pi_old.
        epsilon: in (0, 1).
    """
    ratio = probability_ratio(outputs, targets)
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    return -torch.minimum(ratio * targets.advantages, clipped * targets.advantages).mean()


def probability_ratio(outputs: Tensor, targets: PolicyTargets) -> Tensor:
    """Probabilities of the actions that were taken, divided by the sampling policy's.

    Args:
        outputs: of a policy in the visited states [..., 2 A].
        targets: actions there, with the log probabilities under the other policy.

    Returns:
        Ratios [...].
    """
    return (log_prob(outputs, targets.actions) - targets.log_probs).exp()


def outer_loss(outputs: Tensor, targets: PolicyTargets, clip_ratio: float | None) -> Tensor:
    """`clipped_surrogate` with an epsilon of ``clip_ratio``; `surrogate` if it is None."""
    if clip_ratio is None:
        return surrogate(outputs, targets)
    return clipped_surrogate(outputs, targets, clip_ratio)
