"""Negative margin: a softmax loss that lets training classes overlap (Liu et al. 2020 [45]).

[45] B. Liu, Y. Cao, Y. Lin, Q. Li, Z. Zhang, M. Long, H. Hu: "Negative Margin Matters:
Understanding Margin in Few-shot Classification", ECCV 2020, https://arxiv.org/abs/2003.12060
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.errors import InputError
from omnitraining.limits import check_positive
from omnitraining.losses import cross_entropy
from omnitraining.pretraining.base import LinearPreTraining
from omnitraining.pretraining.linear_heads import CosineHead, CosineLayer, LinearHead


@dataclass(frozen=True)
class NegMargin(LinearPreTraining):
    """Cross-entropy in which a margin below zero raises the similarity to the true class.

    It separates the training classes less sharply, and the features transfer better to new ones.

    Args:
        similarity: ``"cosine"``, or the inner product of ``"softmax"``.
        margin: m, subtracted from the similarity to the true class. The authors take -0.01
            (ResNet-12) to -0.02 with cosine. With softmax they take down to -0.3, times 5 as their
            inner products are (mini-ImageNet, ResNet-18): a margin of -1.5 here.
        scale: factor of the cosines, 30 in the authors' code; not used in ``"softmax"``.
        new_head: how H_new is fitted, without a margin.

    Raises:
        InputError: ``scale`` is not above 0, or ``margin`` not finite.

    Example:
        >>> import torch
        >>> from omnitraining import Baseline, NegMargin
        >>> logits, labels = torch.rand(3, 5), torch.tensor([0, 2, 4])
        >>> bool(NegMargin().loss(logits, labels) < Baseline().loss(logits, labels))
        True
    """

    similarity: Literal["cosine", "softmax"] = "cosine"
    margin: float = -0.02
    scale: float = 30.0
    new_head: LinearHead = field(default_factory=CosineHead)

    def __post_init__(self) -> None:
        check_positive("pretraining", self, "scale")
        if not math.isfinite(self.margin):
            raise InputError(f"pretraining.margin is {self.margin}: it must be finite")

    def head(self, features: int, outputs: int) -> nn.Module:
        """Scaled cosines, or inner products, [B, features] -> [B, outputs]."""
        if self.similarity == "cosine":
            return CosineLayer(features, outputs, self.scale)
        return nn.Linear(features, outputs, bias=False)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """l_pre = -log softmax(scale * (similarity_n - m [n = y]))_y, the mean over samples.

        Args:
            outputs: logits [B, N], scaled and without a margin.
            targets: class indices [B].
        """
        factor = self.scale if self.similarity == "cosine" else 1.0
        margins = factor * self.margin * F.one_hot(targets, outputs.shape[-1])
        return cross_entropy(outputs - margins, targets)
