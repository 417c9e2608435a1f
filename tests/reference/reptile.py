"""Reptile on one task: a copy of the network is trained by torch's SGD (Nichol et al. 2018)."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


def trained(
    network: nn.Module, support: Tensor, labels: Tensor, loss: Loss, steps: int, lr: float
) -> nn.Module:
    """A copy after some steps on the support set."""
    copied = copy.deepcopy(network)
    optimizer = torch.optim.SGD(copied.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(copied(support), labels).backward()
        optimizer.step()
    return copied
