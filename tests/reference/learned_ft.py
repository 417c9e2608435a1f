"""Learned feature-wise transformation: one gradient step by hand, strengths by finite differences.

The slope of the loss on the pseudo-unseen domain is that of two trainings, with a strength a little
larger and a little smaller, so that nothing is differentiated twice.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from omnitraining.batches import Episode

Loss = Callable[[nn.Module, Episode], Tensor]


def moved(network: nn.Module, seen: Episode, loss: Loss, lr: float, seed: int) -> nn.Module:
    """A copy after a step on the pseudo-seen tasks, without noise; strengths do not move."""
    copied = copy.deepcopy(network)
    torch.manual_seed(seed)
    loss(copied, seen).backward()
    with torch.no_grad():
        for name, weight in copied.named_parameters():
            if "gammas" not in name and "betas" not in name:
                weight -= lr * weight.grad
    copied.backbone.training = False
    return copied


def slope(
    network: nn.Module, strength: str, channel: int, unseen: Callable[[], Tensor], eps: float
) -> float:
    """Of the loss on the pseudo-unseen tasks by one strength."""
    weight, values = network.get_parameter(strength), []
    for sign in (1, -1):
        with torch.no_grad():
            weight[channel] += sign * eps
        values.append(unseen().item())
        with torch.no_grad():
            weight[channel] -= sign * eps
    return (values[0] - values[1]) / (2 * eps)
