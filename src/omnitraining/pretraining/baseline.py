"""Baseline: a softmax classifier over all training classes (eq. 16; Chen et al. 2019 [13]).

[13] W.-Y. Chen, Y.-C. Liu, Z. Kira, Y.-C. F. Wang, J.-B. Huang: "A Closer Look at Few-shot
Classification", ICLR 2019, https://arxiv.org/abs/1904.04232
"""

from dataclasses import dataclass, field

from torch import nn

from omnitraining.pretraining.base import LinearPreTraining
from omnitraining.pretraining.linear_heads import LinearHead, LogisticHead


@dataclass(frozen=True)
class Baseline(LinearPreTraining):
    """Cross-entropy over the training classes; at test a new linear head on frozen features.

    Args:
        new_head: how H_new is fitted. `LogisticHead` measures better than the paper's `SGDHead`.

    Example:
        >>> import torch
        >>> from omnitraining import Baseline
        >>> support, labels = torch.eye(2)[None], torch.tensor([[0, 1]])  # [T, S, D] and [T, S]
        >>> classifier = Baseline().fit(torch.nn.Identity(), support, labels, ways=2)
        >>> classifier(torch.tensor([[[0.9, 0.1]]])).argmax(-1)  # of queries [T, Q, D]
        tensor([[0]])
    """

    new_head: LinearHead = field(default_factory=LogisticHead)

    def head(self, features: int, outputs: int) -> nn.Module:
        """A linear layer [B, features] -> [B, outputs] whose bias starts at 0, as in [13]."""
        layer = nn.Linear(features, outputs)
        nn.init.zeros_(layer.bias)
        return layer
