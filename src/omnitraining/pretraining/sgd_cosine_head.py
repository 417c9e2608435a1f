"""The new head of Baseline++ as its authors train it.

[13] W.-Y. Chen, Y.-C. Liu, Z. Kira, Y.-C. F. Wang, J.-B. Huang: "A Closer Look at Few-shot
Classification", ICLR 2019, https://arxiv.org/abs/1904.04232 and its code, CloserLookFewShot
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.heads import LinearClassifier
from omnitraining.limits import check_least, check_positive, check_seed
from omnitraining.pretraining.linear_heads import LinearHead, shuffled_batches


@dataclass(frozen=True)
class SGDCosineHead(LinearHead):
    """Scaled cosines times a learned norm of each class, trained by SGD as [13] trains them.

    Logits are ``scale * g_n * cos(x, v_n)``: the weights of a class, g_n v_n / |v_n|, are under
    weight norm. torch's default initialization, momentum 0.9, dampening 0.9, mini-batches in
    random order.

    Args:
        scale: factor of the cosines; [13] takes 2.
        lr: learning rate.
        weight_decay: L2 penalty, on g and v.
        batch: samples per mini-batch.
        passes: passes over the support set.
        seed: of initialization and order.

    Raises:
        InputError: ``batch`` is below 1.

    Example:
        >>> import torch
        >>> from omnitraining import SGDCosineHead
        >>> support, labels = torch.eye(3)[None], torch.tensor([[0, 1, 2]])
        >>> classifier = SGDCosineHead(lr=0.1, passes=20).fit(support, labels, ways=3)
        >>> classifier(support).argmax(-1)
        tensor([[0, 1, 2]])
    """

    scale: float = 2.0
    lr: float = 0.01
    weight_decay: float = 0.001
    batch: int = 4
    passes: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive("new_head", self, "scale", "lr")
        check_least("new_head", self, 0, "weight_decay", "passes")
        check_least("new_head", self, 1, "batch")
        check_seed("new_head.seed", self.seed)

    @torch.no_grad()
    def fit(self, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """Train the heads of all tasks side by side, each from its own initialization."""
        tasks, _, dim = support.shape
        random = torch.Generator().manual_seed(self.seed)
        start = (torch.rand(tasks, ways, dim, generator=random) * 2 - 1) * dim**-0.5
        directions = start.to(support)  # v
        weights = [directions, directions.norm(dim=-1, keepdim=True)]  # v and g
        velocities: list[Tensor] = []  # torch's SGD starts its momentum undampened
        x, target = F.normalize(support, dim=-1), F.one_hot(labels, ways).to(support.dtype)
        for xs, ys in shuffled_batches(x, target, self.batch, self.passes, random):
            directions, norms = weights
            pairs = zip(self._slopes(directions, norms, xs, ys), weights, strict=True)
            slopes = [slope + self.weight_decay * weight for slope, weight in pairs]
            if velocities:
                moving = zip(velocities, slopes, strict=True)
                velocities = [0.9 * v + 0.1 * s for v, s in moving]
            else:
                velocities = slopes
            weights = [w - self.lr * v for w, v in zip(weights, velocities, strict=True)]
        weight = weights[1] * F.normalize(weights[0], dim=-1)
        return LinearClassifier(weight, normalize=True, scale=self.scale)

    def _slopes(
        self, directions: Tensor, norms: Tensor, x: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the mean cross-entropy by v [T, N, D] and g [T, N, 1]."""
        lengths = directions.norm(dim=-1, keepdim=True)
        unit = directions / lengths
        residual = torch.softmax(self.scale * x @ (norms * unit).mT, -1) - target
        slope = self.scale * residual.mT @ x / x.shape[1]  # by the weights g v / |v|
        along = (slope * unit).sum(-1, keepdim=True)
        return norms / lengths * (slope - along * unit), along
