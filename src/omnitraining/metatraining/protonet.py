"""Prototypical networks (eq. 20; Snell et al. 2017 [69]).

[69] J. Snell, K. Swersky, R. Zemel: "Prototypical Networks for Few-shot Learning", NeurIPS 2017,
https://arxiv.org/abs/1703.05175

[13] W.-Y. Chen, Y.-C. Liu, Z. Kira, Y.-C. F. Wang, J.-B. Huang: "A Closer Look at Few-shot
Classification", ICLR 2019, https://arxiv.org/abs/1904.04232
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode, class_means
from omnitraining.limits import check_positive
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.precision import at_least_float32, in_full_precision

Metric = Literal["euclidean", "distance", "cosine"]

SMALLEST = 1e-6
"""Least squared distance, where the slope of its root is still finite."""


class Prototypes(nn.Module):
    """A head whose logits are distances or cosines of features and prototypes.

    Args:
        prototypes: [T, N, D].
        metric: as in `ProtoNet`.
        scale: factor of the logits.
    """

    def __init__(self, prototypes: Tensor, metric: Metric, scale: float) -> None:
        """Register the prototypes as a buffer."""
        super().__init__()
        self.metric, self.scale = metric, scale
        self.register_buffer("prototypes", prototypes)
        self.prototypes: Tensor

    @in_full_precision
    def forward(self, query: Tensor) -> Tensor:
        """Logits [T, Q, N] of query features [T, Q, D]."""
        if self.metric == "cosine":
            directions = F.normalize(self.prototypes, dim=-1)
            return self.scale * F.normalize(query, dim=-1) @ directions.mT
        # -|q - c|^2 expanded, so that it is one matrix product
        squares = query.square().sum(-1, keepdim=True)
        squares = squares + self.prototypes.square().sum(-1).unsqueeze(1)
        products = 2 * query @ self.prototypes.mT - squares
        if self.metric == "distance":  # its slope at 0 is not finite
            return -self.scale * (-products).clamp_min(SMALLEST).sqrt()
        return self.scale * products


@dataclass(frozen=True)
class ProtoNet(MetaTraining):
    """Classifies a query by its distance to the mean embedding of each class.

    Args:
        metric: ``"euclidean"``: logits are negative squared distances, summed over dimensions, as
            in [69] and [13]; ``"distance"``: negative distances, without the square, as printed in
            eq. 20; ``"cosine"``: cosine similarities of unit embeddings.
        scale: factor of the logits.

    Raises:
        InputError: ``scale`` is not above 0.

    Example:
        >>> import torch
        >>> from omnitraining import ProtoNet
        >>> support = torch.tensor([[[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [4.0, 2.0]]])  # [T, S, D]
        >>> labels = torch.tensor([[0, 0, 1, 1]])
        >>> algorithm = ProtoNet(metric="euclidean", scale=1.0)
        >>> classifier = algorithm.fit(torch.nn.Identity(), support, labels, ways=2)
        >>> classifier(torch.tensor([[[1.0, 1.0]]]))  # of a query, [T, Q, D]
        tensor([[[-1., -9.]]])
    """

    metric: Metric = "cosine"
    scale: float = 10.0

    def __post_init__(self) -> None:
        check_positive("metatraining", self, "scale")

    def head(self, features: int, outputs: int) -> nn.Module:
        """The identity: prototypes are features."""
        return nn.Identity()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [T, Q, N] against class indices [T, Q] (eq. 20)."""
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Logits [T, Q, N]."""
        # One forward pass: batch norm sees support and query together, as in [13].
        embedded = episode.with_inputs(network(episode.inputs()))
        head = self.fit(network.head, embedded.support_x, episode.support_y, episode.ways)
        logits: Tensor = head(embedded.query_x)
        return logits

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """`Prototypes`: mean support features, of unit features if the metric is the cosine."""
        support = at_least_float32(support)
        if self.metric == "cosine":
            support = F.normalize(support, dim=-1)
        return Prototypes(class_means(support, labels, ways), self.metric, self.scale)
