"""Heads fitted to new tasks: modules from query features [T, Q, D] to outputs [T, Q, N]."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode
from omnitraining.network import Network


class LinearClassifier(nn.Module):
    """One linear layer per task.

    Args:
        weight: [T, N, D].
        bias: [T, N]; none if not given.
        normalize: scale features to length 1 first.
        scale: factor of the logits.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        normalize: bool = False,
        scale: float = 1.0,
    ) -> None:
        """Register the weights as buffers: they are fitted, not trained."""
        super().__init__()
        self.normalize, self.scale = normalize, scale
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.weight: Tensor
        self.bias: Tensor | None

    def forward(self, query: Tensor) -> Tensor:
        """Logits [T, Q, N] of query features [T, Q, D]."""
        x = F.normalize(query, dim=-1) if self.normalize else query
        logits = self.scale * x @ self.weight.mT
        return logits if self.bias is None else logits + self.bias.unsqueeze(1)


class PredictsQueries(Protocol):
    """An algorithm that predicts a query set given a support set."""

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Query outputs [T, Q, O]."""


class SupportConditionedHead(nn.Module):
    """A head that keeps the support set: its algorithm predicts each query set given that.

    Args:
        algorithm: it predicts.
        head: of training.
        support: features [T, S, D].
        labels: class indices [T, S].
        ways: number of classes N.
    """

    def __init__(
        self,
        algorithm: PredictsQueries,
        head: nn.Module,
        support: Tensor,
        labels: Tensor,
        ways: int,
    ) -> None:
        """Register the support set as buffers, and the head behind an identity as backbone."""
        super().__init__()
        self.algorithm, self.ways = algorithm, ways
        self.network = Network(nn.Identity(), head)
        self.register_buffer("support", support)
        self.register_buffer("labels", labels)
        self.support: Tensor
        self.labels: Tensor

    def forward(self, query: Tensor) -> Tensor:
        """Outputs [T, Q, N] of query features [T, Q, D]."""
        unknown = torch.zeros(query.shape[:2], dtype=torch.long, device=query.device)
        episode = Episode(self.support, self.labels, query, unknown, self.ways)
        return self.algorithm.predict(self.network, episode)
