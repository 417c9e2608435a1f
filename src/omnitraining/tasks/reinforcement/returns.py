"""From rewards to advantages: discounted sums, the linear baseline, and GAE.

Tensors are [T tasks, M trajectories, H steps]; steps after the end of a trajectory are not
``valid`` and have reward 0.

The linear baseline is from
[17] Duan et al. 2016, "Benchmarking deep reinforcement learning for continuous control",
https://arxiv.org/abs/1604.06778; GAE is from Schulman et al. 2016, "High-dimensional continuous
control using generalized advantage estimation", https://arxiv.org/abs/1506.02438.
"""

import torch
from torch import Tensor


def discounted_sums(values: Tensor, discount: float) -> Tensor:
    """At every step t the sum over k of discount^k values[t + k], along the last dimension."""
    steps = torch.arange(values.shape[-1], device=values.device)
    distance = steps[:, None] - steps  # [later, now]
    weights = (discount ** distance.clamp(min=0)) * (distance >= 0)
    return values @ weights.to(values.dtype)


def baseline_features(states: Tensor) -> Tensor:
    """Features [..., H, 2 S + 4] of states [..., H, S]: s, s^2, t, t^2, t^3, 1.

    States are clipped to +-10, and time is counted in hundreds of steps, as in [17].
    """
    clipped = states.clamp(-10, 10)
    time = torch.arange(states.shape[-2], device=states.device, dtype=states.dtype)[:, None] / 100
    powers = torch.cat([time, time**2, time**3, torch.ones_like(time)], -1)
    powers = powers.expand(*states.shape[:-1], 4)
    return torch.cat([clipped, clipped.square(), powers], -1)


def linear_baseline(states: Tensor, returns: Tensor, valid: Tensor, ridge: float = 1e-5) -> Tensor:
    """Values [T, M, H] of states, by ridge regression of the returns, task by task.

    It predicts the trajectories that it is fitted to, as in [17]. Solved in float64.

    Args:
        states: [T, M, H, S].
        returns: discounted sums of rewards [T, M, H].
        valid: steps that took place [T, M, H].
        ridge: weight of the squared coefficients.
    """
    features = baseline_features(states).double() * valid.unsqueeze(-1)
    flat = features.flatten(1, 2)  # [T, M * H, D]
    gram = flat.mT @ flat
    gram.diagonal(dim1=-2, dim2=-1).add_(ridge)
    moments = flat.mT @ (returns * valid).double().flatten(1, 2).unsqueeze(-1)
    coefficients = torch.linalg.solve(gram, moments)  # [T, D, 1]
    values: Tensor = (features @ coefficients.unsqueeze(1)).squeeze(-1)
    return values.to(returns.dtype)


def generalized_advantages(
    rewards: Tensor, values: Tensor, discount: float, gae_lambda: float
) -> Tensor:
    """GAE: sums of r_t + discount V(t + 1) - V(t), discounted by discount * gae_lambda.

    Args:
        rewards: [..., H].
        values: of the states [..., H], 0 after the end; so is the value after the last step.
        discount: gamma.
        gae_lambda: at 1 the advantage is the return minus the value.
    """
    following = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], -1)
    return discounted_sums(rewards + discount * following - values, discount * gae_lambda)


def normalize_advantages(advantages: Tensor, valid: Tensor) -> Tensor:
    """Advantages with mean 0 and deviation 1 over the valid steps of a task; 0 elsewhere.

    They are divided by the fraction of valid steps, so that a mean over all steps is a mean over
    the valid ones.

    Args:
        advantages: [T, M, H].
        valid: steps that took place [T, M, H].
    """
    count = valid.sum((1, 2), keepdim=True)
    mean = (advantages * valid).sum((1, 2), keepdim=True) / count
    centered = (advantages - mean) * valid
    deviation = (centered.square().sum((1, 2), keepdim=True) / count).sqrt()
    fraction = count / valid[0].numel()
    scaled: Tensor = centered / (deviation + 1e-8) / fraction
    return scaled
