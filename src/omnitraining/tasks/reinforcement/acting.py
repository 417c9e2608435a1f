"""From networks to policies that act."""

from torch import nn

from omnitraining.adaptation.batched import SideBySide, Weights
from omnitraining.omninet import plain
from omnitraining.tasks.reinforcement.trajectories import Policy


def one_policy(network: nn.Module) -> Policy:
    """One network acts in all tasks."""
    folded = plain(network)
    return lambda states: folded(states.flatten(0, 1)).unflatten(0, states.shape[:2])


def policies(network: nn.Module, weights: Weights) -> Policy:
    """Every task has a network of its own.

    Args:
        network: the architecture.
        weights: by the names of ``network``'s parameters [T, ...].
    """
    return SideBySide(network).bind(weights)
