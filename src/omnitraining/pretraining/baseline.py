"""Baseline: a softmax classifier over all training classes (eq. 16; Chen et al. 2019 [13])."""

from dataclasses import dataclass, field

from torch import nn

from omnitraining.pretraining.base import LinearPreTraining
from omnitraining.pretraining.linear_heads import LinearHead, LogisticHead


@dataclass(frozen=True)
class Baseline(LinearPreTraining):
    """Cross-entropy over the training classes; at test a new linear head on frozen features.

    Args:
        new_head: how H_new is fitted. `LogisticHead` measures better than the paper's `SGDHead`.
    """

    new_head: LinearHead = field(default_factory=LogisticHead)

    def head(self, features: int, outputs: int) -> nn.Module:
        layer = nn.Linear(features, outputs)
        nn.init.zeros_(layer.bias)
        return layer
