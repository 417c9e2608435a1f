"""Baseline++: a classifier by cosine similarity (Chen et al. 2019 [13]).

[13] W.-Y. Chen, Y.-C. Liu, Z. Kira, Y.-C. F. Wang, J.-B. Huang: "A Closer Look at Few-shot
Classification", ICLR 2019, https://arxiv.org/abs/1904.04232

[79] H.-Y. Tseng, H.-Y. Lee, J.-B. Huang, M.-H. Yang: "Cross-Domain Few-Shot Classification via
Learned Feature-Wise Transformation", ICLR 2020, https://arxiv.org/abs/2001.08735
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from omnitraining.limits import check_positive
from omnitraining.pretraining.base import LinearPreTraining
from omnitraining.pretraining.linear_heads import CosineHead, CosineLayer, LinearHead


@dataclass(frozen=True)
class BaselinePP(LinearPreTraining):
    """Baseline whose logits are scaled cosines of features and class weights.

    Args:
        scale: factor of the cosines in training. [13] takes 2 for up to 200 classes, with learned
            norms, and 10 for more.
        new_head: how H_new is fitted.
        norm: of class weights: ``"unit"``: 1, as in the code of [79]; ``"learned"``: a factor of
            each class, as in [13], whose new heads have one too (`SGDCosineHead`).

    Raises:
        InputError: ``scale`` is not above 0.

    Example:
        >>> import torch
        >>> from omnitraining import BaselinePP
        >>> logits = BaselinePP(scale=10.0).head(features=8, outputs=5)(torch.rand(3, 8))
        >>> logits.shape, bool(logits.abs().max() <= 10)
        (torch.Size([3, 5]), True)
    """

    scale: float = 10.0
    new_head: LinearHead = field(default_factory=CosineHead)
    norm: Literal["unit", "learned"] = "unit"

    def __post_init__(self) -> None:
        check_positive("pretraining", self, "scale")

    def head(self, features: int, outputs: int) -> nn.Module:
        """Scaled cosines [B, features] -> [B, outputs]."""
        return CosineLayer(features, outputs, self.scale, self.norm == "learned")
