"""Baseline++: a classifier by cosine similarity (Chen et al. 2019 [13])."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from omnitraining.batches import Episode
from omnitraining.losses import cross_entropy
from omnitraining.network import Network
from omnitraining.pretraining.base import PreTraining
from omnitraining.pretraining.linear_heads import CosineHead, CosineLayer, LinearHead


@dataclass(frozen=True)
class BaselinePP(PreTraining):
    """Baseline whose logits are scaled cosines of features and class weights.

    Class weights have length 1, as [79] computes them; [13] learns their lengths.

    Args:
        scale: factor of the cosines in training.
        new_head: how H_new is fitted.
    """

    scale: float = 10.0
    new_head: LinearHead = field(default_factory=CosineHead)

    def head(self, features: int, outputs: int) -> nn.Module:
        return CosineLayer(features, outputs, self.scale)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        return self.new_head.predict(network.backbone, episode)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        return self.new_head.fit(support, labels, ways)
