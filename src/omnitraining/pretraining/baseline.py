"""Baseline: a softmax classifier over all training classes (eq. 16; Chen et al. 2019 [13])."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from omnitraining.batches import Episode
from omnitraining.losses import cross_entropy
from omnitraining.network import Network
from omnitraining.pretraining.base import PreTraining
from omnitraining.pretraining.linear_heads import LinearHead, LogisticHead


@dataclass(frozen=True)
class Baseline(PreTraining):
    """Cross-entropy over the training classes; at test a new linear head on frozen features.

    Args:
        new_head: how H_new is fitted. `LogisticHead` measures better than the paper's `SGDHead`.
    """

    new_head: LinearHead = field(default_factory=LogisticHead)

    def head(self, features: int, outputs: int) -> nn.Module:
        layer = nn.Linear(features, outputs)
        nn.init.zeros_(layer.bias)
        return layer

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        return self.new_head.predict(network.backbone, episode)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        return self.new_head.fit(support, labels, ways)
