"""Prototypical networks (eq. 20; Snell et al. 2017 [69])."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode, class_means
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.precision import at_least_float32, in_full_precision

Metric = Literal["euclidean", "distance", "cosine"]

SMALLEST = 1e-6
"""Squared distance below which one is not told from zero."""


class Prototypes(nn.Module):
    """Logits [T, Q, N] of features [T, Q, D] by their distance to prototypes [T, N, D]."""

    def __init__(self, prototypes: Tensor, metric: Metric, scale: float) -> None:
        super().__init__()
        self.metric, self.scale = metric, scale
        self.register_buffer("prototypes", prototypes)
        self.prototypes: Tensor

    @in_full_precision
    def forward(self, query: Tensor) -> Tensor:
        if self.metric == "cosine":
            directions = F.normalize(self.prototypes, dim=-1)
            return self.scale * F.normalize(query, dim=-1) @ directions.mT
        # -|q - c|^2 expanded, so that it is one matrix product
        squares = query.square().sum(-1, keepdim=True)
        squares = squares + self.prototypes.square().sum(-1).unsqueeze(1)
        products = 2 * query @ self.prototypes.mT - squares
        if self.metric == "distance":  # whose slope at 0 is not finite
            return -self.scale * (-products).clamp_min(SMALLEST).sqrt()
        return self.scale * products


@dataclass(frozen=True)
class ProtoNet(MetaTraining):
    """Classifies a query by its distance to the mean embedding of each class.

    Args:
        metric: ``"euclidean"``: logits are negative squared distances, summed over dimensions, as
            the algorithm's authors and [13] have it; ``"distance"``: negative distances, without
            the square, as eq. 20 prints them; ``"cosine"``: cosine similarities of unit
            embeddings.
        scale: factor of the logits.
    """

    metric: Metric = "cosine"
    scale: float = 10.0

    def head(self, features: int, outputs: int) -> nn.Module:
        return nn.Identity()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        # One forward pass: batch norm sees support and query together, as in [13].
        embedded = episode.with_inputs(network(episode.inputs()))
        head = self.fit(network.head, embedded.support_x, episode.support_y, episode.ways)
        logits: Tensor = head(embedded.query_x)
        return logits

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        support = at_least_float32(support)
        if self.metric == "cosine":
            support = F.normalize(support, dim=-1)
        return Prototypes(class_means(support, labels, ways), self.metric, self.scale)
