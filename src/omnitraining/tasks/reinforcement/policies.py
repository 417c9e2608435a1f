"""Networks as policies in T tasks: one network for all of them, or one per task."""

from collections.abc import Callable

from torch import Tensor, nn

from omnitraining.adaptation.batched import BatchedModules, Weights
from omnitraining.omninet import plain

Policy = Callable[[Tensor], Tensor]
"""From states [T, M, S] to means and log standard deviations of actions [T, M, 2 A]."""


def shared_policy(network: nn.Module) -> Policy:
    """The policy of one network in all tasks.

    Args:
        network: from states [B, S] to outputs [B, 2 A].
    """
    without_branches = plain(network)
    return lambda states: without_branches(states.flatten(0, 1)).unflatten(0, states.shape[:2])


def per_task_policy(network: nn.Module, weights: Weights) -> Policy:
    """A policy with its own weights in each task.

    Args:
        network: the architecture.
        weights: by the names of ``network``'s parameters [T, ...].
    """
    return BatchedModules(network).bind(weights)
