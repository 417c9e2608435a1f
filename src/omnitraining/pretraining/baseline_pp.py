"""Baseline++: a classifier by cosine similarity (Chen et al. 2019 [13])."""

from dataclasses import dataclass, field

from torch import nn

from omnitraining.pretraining.base import LinearPreTraining
from omnitraining.pretraining.linear_heads import CosineHead, CosineLayer, LinearHead


@dataclass(frozen=True)
class BaselinePP(LinearPreTraining):
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
