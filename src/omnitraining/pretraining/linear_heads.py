"""Linear classifiers for new tasks: the heads of all tasks are fitted in one batched solve.

[13] W.-Y. Chen, Y.-C. Liu, Z. Kira, Y.-C. F. Wang, J.-B. Huang: "A Closer Look at Few-shot
Classification", ICLR 2019, https://arxiv.org/abs/1904.04232 and its code, CloserLookFewShot
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode
from omnitraining.heads import LinearClassifier
from omnitraining.limits import check_least, check_positive, check_seed
from omnitraining.precision import in_full_precision


class LinearHead(ABC):
    """A way to fit H_new on the features of a support set, the backbone frozen."""

    @abstractmethod
    def fit(self, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """Heads of T tasks: a module from query features [T, Q, D] to logits [T, Q, N].

        Args:
            support: features [T, S, D].
            labels: class indices [T, S].
            ways: number of classes N.
        """

    def logits(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Logits of the queries under heads fitted on the support sets, [T, Q, N].

        Args:
            support: features [T, S, D].
            labels: class indices [T, S].
            query: features [T, Q, D].
            ways: number of classes N.
        """
        logits: Tensor = self.fit(support, labels, ways)(query)
        return logits

    def predict(self, backbone: nn.Module, episode: Episode) -> Tensor:
        """Logits [T, Q, N] of the queries of new tasks, on the features of a frozen backbone."""
        support, query = (
            backbone(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            for x in (episode.support_x, episode.query_x)
        )
        return self.logits(support, episode.support_y, query, episode.ways)


class CosineLayer(nn.Module):
    """A linear layer whose logits are scaled cosines of features and class weights.

    Args:
        features: D.
        outputs: number of classes N.
        scale: factor of the cosines.
        learned_norms: multiply the cosines of each class by a learned factor too, which starts as
            the length of its weights, as a weight norm does.
    """

    def __init__(
        self, features: int, outputs: int, scale: float, learned_norms: bool = False
    ) -> None:
        """Initialize the class weights [N, D] as `torch.nn.Linear` does."""
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(outputs, features))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.norms = nn.Parameter(self.weight.detach().norm(dim=-1)) if learned_norms else None

    @in_full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Logits [..., N] of features [..., D]."""
        cosines = F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1))
        return self.scale * (cosines if self.norms is None else self.norms * cosines)


@dataclass(frozen=True)
class LogisticHead(LinearHead):
    """Multinomial logistic regression on L2-normalized features, solved to convergence.

    Minimizes cross-entropy + penalty / 2 ||W||^2, without a bias. Gradient descent from zero stays
    in the span of the support features, W = X^T A, so that with few of them it runs on A alone,
    with the small Gram matrix in place of the features; with more samples than features it runs on
    W. Unit features bound the curvature of the mean cross-entropy by 1/2, so Nesterov's method
    needs no step size.

    Args:
        penalty: its strength, against the loss of the support set.
        iterations: of the solver.
        reduction: of that loss over the samples: ``"mean"``, or ``"sum"`` as in scikit-learn, whose
            C is 1 / penalty.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from omnitraining import LogisticHead
        >>> support, labels = torch.eye(3)[None], torch.tensor([[0, 1, 2]])
        >>> classifier = LogisticHead().fit(support, labels, ways=3)
        >>> classifier(support).argmax(-1)
        tensor([[0, 1, 2]])
    """

    penalty: float = 0.01
    iterations: int = 100
    reduction: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        check_least("new_head", self, 0, "penalty")
        check_least("new_head", self, 1, "iterations")

    def fit(self, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """Solve for the heads by Nesterov's accelerated gradient."""
        # Classes come before samples: a softmax along the last, short axis is four times slower.
        x, target = F.normalize(support, dim=-1), F.one_hot(labels, ways).mT.to(support.dtype)
        samples, features = x.shape[1:]
        few = samples <= features
        inner = x @ x.mT if few else x.mT  # from what is solved for to logits of the samples
        penalty = self.penalty / samples if self.reduction == "sum" else self.penalty
        curvature = 0.5 + penalty
        ratio = (penalty / curvature) ** 0.5
        momentum = (1 - ratio) / (1 + ratio)
        weight = ahead = x.new_zeros(len(x), ways, samples if few else features)  # A^T or W^T
        for _ in range(self.iterations):
            residual = torch.softmax(ahead @ inner, 1) - target
            slope = (residual if few else residual @ x) / samples + penalty * ahead
            following = ahead - slope / curvature
            ahead = following + momentum * (following - weight)
            weight = following
        return LinearClassifier(weight @ x if few else weight, normalize=True)


@dataclass(frozen=True)
class SGDHead(LinearHead):
    """A linear layer trained by SGD, as the paper and CloserLookFewShot [13] have it.

    torch's default initialization, momentum 0.9, dampening 0.9, mini-batches in random order.

    Args:
        lr: learning rate.
        weight_decay: L2 penalty, on the bias too.
        batch: samples per mini-batch.
        passes: passes over the support set.
        seed: of initialization and order.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from omnitraining import SGDHead
        >>> support, labels = torch.eye(3)[None], torch.tensor([[0, 1, 2]])
        >>> SGDHead(lr=0.1, passes=20).fit(support, labels, ways=3)(support).shape
        torch.Size([1, 3, 3])
    """

    lr: float = 0.01
    weight_decay: float = 0.001
    batch: int = 4
    passes: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive("new_head", self, "lr")
        check_least("new_head", self, 0, "weight_decay", "passes")
        check_least("new_head", self, 1, "batch")
        check_seed("new_head.seed", self.seed)

    @torch.no_grad()
    def fit(self, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """Train the heads of all tasks side by side, each from its own initialization."""
        tasks, _, dim = support.shape
        random = torch.Generator().manual_seed(self.seed)
        start = (torch.rand(tasks, dim + 1, ways, generator=random) * 2 - 1) * dim**-0.5
        weight = start.mT.contiguous().to(support)
        velocity: Tensor | None = None  # torch's SGD starts its momentum undampened
        x, target = _with_bias(support), F.one_hot(labels, ways).to(support.dtype)
        for xs, ys in shuffled_batches(x, target, self.batch, self.passes, random):
            residual = torch.softmax(weight @ xs.mT, 1) - ys.mT
            slope = torch.baddbmm(
                weight, residual, xs, beta=self.weight_decay, alpha=1 / xs.shape[1]
            )
            velocity = slope if velocity is None else velocity.mul_(0.9).add_(slope, alpha=0.1)
            weight.sub_(velocity, alpha=self.lr)
        return LinearClassifier(weight[..., :dim], weight[..., dim])


@dataclass(frozen=True)
class CosineHead(LinearHead):
    """Class weights of length 1 whose scaled cosines with the features are logits.

    They start as the prototypes and follow the gradient of the mean cross-entropy along the
    sphere. [13] starts at random and takes mini-batches; from the prototypes, a few full-batch
    steps suffice.

    Args:
        scale: factor of the cosines.
        lr: step size.
        steps: gradient steps.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from omnitraining import CosineHead
        >>> support, labels = torch.eye(3)[None], torch.tensor([[0, 1, 2]])
        >>> logits = CosineHead(scale=10.0).fit(support, labels, ways=3)(support)
        >>> logits.argmax(-1), bool(logits.max() <= 10)
        (tensor([[0, 1, 2]]), True)
    """

    scale: float = 10.0
    lr: float = 0.1
    steps: int = 30

    def __post_init__(self) -> None:
        check_positive("new_head", self, "scale", "lr")
        check_least("new_head", self, 0, "steps")

    def fit(self, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """Start at the prototypes and take the gradient steps."""
        x, target = F.normalize(support, dim=-1), F.one_hot(labels, ways).mT.to(support.dtype)
        weight = F.normalize(target @ x / target.sum(-1, keepdim=True), dim=-1)  # [T, N, D]
        for _ in range(self.steps):
            residual = torch.softmax(self.scale * weight @ x.mT, 1) - target
            slope = self.scale * residual @ x / x.shape[1]
            along = slope - (slope * weight).sum(-1, keepdim=True) * weight
            weight = F.normalize(weight - self.lr * along, dim=-1)
        return LinearClassifier(weight, normalize=True, scale=self.scale)


def shuffled_batches(
    x: Tensor, target: Tensor, batch: int, passes: int, random: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Mini-batches of the support sets of all tasks, each set in a new random order in every pass.

    Args:
        x: features [T, S, D].
        target: [T, S, N].
        batch: samples per mini-batch B; the last of a pass may have fewer.
        passes: over the support sets.
        random: of the orders, on the CPU.

    Returns:
        Features [T, B, D] and targets [T, B, N].
    """
    for _ in range(passes):
        order = torch.rand(x.shape[:2], generator=random).argsort(1).to(x.device)
        for chosen in order.split(batch, dim=1):
            rows = chosen.unsqueeze(-1)
            yield (
                x.gather(1, rows.expand(-1, -1, x.shape[-1])),
                target.gather(1, rows.expand(-1, -1, target.shape[-1])),
            )


def _with_bias(features: Tensor) -> Tensor:
    return torch.cat([features, features.new_ones(*features.shape[:-1], 1)], -1)
