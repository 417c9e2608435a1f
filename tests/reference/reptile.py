"""Reptile on one task: a copy of the network that torch trains (Nichol et al. 2018)."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


def trained(
    network: nn.Module,
    support: Tensor,
    labels: Tensor,
    loss: Loss,
    steps: int,
    lr: float,
    optimizer: str = "sgd",
    batch: int = 0,
) -> nn.Module:
    """A copy after some steps on the support set, or on so many of its samples, from the first."""
    copied = copy.deepcopy(network)
    optimizer = (
        torch.optim.Adam(copied.parameters(), lr, betas=(0.0, 0.999))
        if optimizer == "adam"
        else torch.optim.SGD(copied.parameters(), lr)
    )
    stream = [number % len(labels) for number in range(steps * (batch or len(labels)))]
    for step in range(steps):
        size = batch or len(labels)
        own = stream[step * size : (step + 1) * size]
        optimizer.zero_grad()
        loss(copied(support[own]), labels[own]).backward()
        optimizer.step()
    return copied
