"""ANIL: MAML whose inner loop adapts the head alone (Raghu et al. 2020).

A. Raghu, M. Raghu, S. Bengio, O. Vinyals: "Rapid Learning or Feature Reuse? Towards Understanding
the Effectiveness of MAML", ICLR 2020, https://arxiv.org/abs/1909.09157
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode
from omnitraining.heads import LinearClassifier
from omnitraining.limits import check_least, check_positive
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.precision import at_least_float32


@dataclass(frozen=True)
class ANIL(MetaTraining):
    """Learns features and an initial linear head; a few gradient steps adapt only the head.

    The gradient of a linear layer is written out, so that the heads of all tasks adapt in one
    batch of matrix products. Batch norm uses running statistics at test, as the features of a task
    do not depend on its support set.

    Args:
        steps: inner gradient steps on the whole support set.
        lr: inner learning rate.
        second_order: differentiate through the inner gradients.

    Raises:
        InputError: ``steps`` is below 0 or ``lr`` is not above it.

    Example:
        >>> import torch
        >>> from omnitraining import ANIL
        >>> algorithm = ANIL(steps=20, lr=1.0)
        >>> support, labels = torch.eye(2)[None], torch.tensor([[0, 1]])
        >>> classifier = algorithm.fit(algorithm.head(2, 2), support, labels, ways=2)
        >>> classifier(support).argmax(-1)  # of queries [T, Q, D]
        tensor([[0, 1]])
    """

    steps: int = 5
    lr: float = 0.1
    second_order: bool = True

    fixed_ways = True

    def __post_init__(self) -> None:
        check_least("metatraining", self, 0, "steps")
        check_positive("metatraining", self, "lr")

    def head(self, features: int, outputs: int) -> nn.Module:
        """A linear layer whose bias starts at 0, as in `MAML`."""
        layer = nn.Linear(features, outputs)
        nn.init.zeros_(layer.bias)
        return layer

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [T, Q, N] against class indices [T, Q]."""
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Logits [T, Q, N] of the adapted heads."""
        return self.outputs_of_heads(network, episode)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """Linear heads after the inner steps, which start at the head of training."""
        layer, x = cast(nn.Linear, head), at_least_float32(support)
        with torch.autocast(x.device.type, enabled=False):
            target = F.one_hot(labels, ways).to(x.dtype)
            weight = layer.weight.expand(len(x), -1, -1)
            bias = layer.bias.expand(len(x), -1)
            for _ in range(self.steps):
                logits = torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
                residual = (logits.softmax(-1) - target) / x.shape[1]  # slope of the mean loss
                slope, shift = residual.mT @ x, residual.sum(1)
                if not self.second_order:
                    slope, shift = slope.detach(), shift.detach()
                weight, bias = weight - self.lr * slope, bias - self.lr * shift
        return LinearClassifier(weight, bias)
