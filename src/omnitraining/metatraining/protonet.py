"""Prototypical networks (eq. 20; Snell et al. 2017 [69])."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network


@dataclass(frozen=True)
class ProtoNet(MetaTraining):
    """Classifies a query by its distance to the mean embedding of each class.

    Args:
        metric: ``"euclidean"``: logits are negative squared distances, summed over dimensions, as
            the algorithm's authors and [13] have it (eq. 20 prints d without a square);
            ``"cosine"``: cosine similarities of unit embeddings, which measured better.
        scale: factor of the logits.
    """

    metric: Literal["euclidean", "cosine"] = "cosine"
    scale: float = 10.0

    def head(self, features: int, outputs: int) -> nn.Module:
        return nn.Identity()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        # One forward pass: batch norm sees support and query together, as in [13].
        features: Tensor = network(episode.inputs())
        if self.metric == "cosine":
            features = F.normalize(features, dim=-1)
        embedded = episode.with_inputs(features)
        prototypes, query = embedded.prototypes(), embedded.query_x
        if self.metric == "cosine":
            return self.scale * query @ F.normalize(prototypes, dim=-1).mT
        # -|q - c|^2 expanded, so that it is one matrix product
        squares = query.square().sum(-1, keepdim=True) + prototypes.square().sum(-1).unsqueeze(1)
        return self.scale * (2 * query @ prototypes.mT - squares)
