"""Meta-learning with differentiable convex solvers (Lee et al. 2019 [41]): ridge and SVM heads.

[41] K. Lee, S. Maji, A. Ravichandran, S. Soatto: "Meta-Learning with Differentiable Convex
Optimization", CVPR 2019, https://arxiv.org/abs/1904.03758

R2-D2: L. Bertinetto, J. F. Henriques, P. H. S. Torr, A. Vedaldi: "Meta-learning with differentiable
closed-form solvers", ICLR 2019, https://arxiv.org/abs/1805.08136

SVM: K. Crammer, Y. Singer: "On the Algorithmic Implementation of Multiclass Kernel-based Vector
Machines", JMLR 2001. Accelerated projected gradients: A. Beck, M. Teboulle: "A Fast Iterative
Shrinkage-Thresholding Algorithm for Linear Inverse Problems", SIAM J. Imaging Sciences 2009.
Projection onto a simplex: J. Duchi et al.: "Efficient Projections onto the l1-Ball for Learning in
High Dimensions", ICML 2008.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.heads import LinearClassifier
from omnitraining.limits import check_least, check_positive
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.precision import at_least_float32


def ridge(gram: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """Dual weights A [T, S, N] of ridge regression onto the targets, so that W = X^T A.

    Args:
        gram: X X^T of the support sets [T, S, S].
        targets: one-hot labels [T, S, N].
        penalty: weight of ||W||^2 against the sum of squared errors.
    """
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    weights: Tensor = torch.linalg.solve(gram + penalty * identity, targets)
    return weights


def support_vectors(gram: Tensor, targets: Tensor, cost: float, iterations: int = 300) -> Tensor:
    """Dual weights A [T, S, N] of the multi-class SVM of Crammer & Singer, so that W = X^T A.

    Minimizes ||W||^2 / 2 + cost * sum of hinge losses: in the dual, A = cost * targets - B where
    every row of B is on a simplex of size ``cost``. Accelerated projected gradients find which
    entries of B are zero; a linear system then gives the others exactly. The gradient of that
    system is the gradient of the solution, since small changes of the features do not change which
    entries are zero.

    Args:
        gram: X X^T of the support sets [T, S, S].
        targets: one-hot labels [T, S, N].
        cost: weight of the hinge losses.
        iterations: of the projected gradients.
    """
    # Norms take no NaN; the linear system below does and returns NaN.
    free = _active_set(gram.detach().nan_to_num(), targets, cost, iterations)
    tasks, samples, ways = targets.shape
    size = samples * ways
    # Unknowns: A, class by class, and a multiplier per sample that keeps its row sum at zero.
    # A free entry is stationary, (K A)_in + multiplier_i = target_in; any other is at its bound.
    classes = torch.eye(ways, dtype=gram.dtype, device=gram.device)
    kernel = torch.einsum("nm,tij->tnimj", classes, gram).reshape(tasks, size, size)
    sums = torch.eye(samples, dtype=gram.dtype, device=gram.device).repeat(1, ways)
    sums = sums.expand(tasks, -1, -1)
    is_free = free.mT.reshape(tasks, size, 1).to(gram.dtype)
    identity = torch.eye(size, dtype=gram.dtype, device=gram.device)
    # Where samples outnumber features the solution is not unique in A; it is in W.
    ridge = 1e-6 * gram.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1).detach() * identity
    upper = torch.cat([is_free * (kernel + ridge) + (1 - is_free) * identity, is_free * sums.mT], 2)
    lower = torch.cat([sums, sums.new_zeros(tasks, samples, samples)], 2)
    target, bound = (v.mT.reshape(tasks, size, 1) for v in (targets, cost * targets))
    right = torch.cat(
        [torch.where(is_free > 0, target, bound), target.new_zeros(tasks, samples, 1)], 1
    )
    solution: Tensor = torch.linalg.solve(torch.cat([upper, lower], 1), right)
    weights: Tensor = solution[:, :size, 0].unflatten(1, (ways, samples)).mT
    return weights


@torch.no_grad()
def _active_set(gram: Tensor, targets: Tensor, cost: float, iterations: int) -> Tensor:
    """Which entries of B = cost * targets - A are above zero, [T, S, N]."""
    step = 1 / torch.linalg.matrix_norm(gram, 2).clamp_min(1e-12).view(-1, 1, 1)
    weights = ahead = torch.full_like(targets, cost / targets.shape[-1])  # B
    momentum = 1.0
    for _ in range(iterations):
        slope = targets - gram @ (cost * targets - ahead)
        following = _onto_simplex(ahead - step * slope, cost)
        grown = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = following + (momentum - 1) / grown * (following - weights)
        weights, momentum = following, grown
    return weights > 1e-6 * cost


def _onto_simplex(rows: Tensor, size: float) -> Tensor:
    """The nearest points whose entries are 0 or more and sum to ``size``, along the last axis."""
    falling = rows.sort(-1, descending=True).values
    ranks = torch.arange(1, rows.shape[-1] + 1, dtype=rows.dtype, device=rows.device)
    shifts = (falling.cumsum(-1) - size) / ranks
    last = (falling > shifts).sum(-1, keepdim=True) - 1
    return (rows - shifts.gather(-1, last)).clamp_min(0)


class Scale(nn.Module):
    """A learned factor of the logits.

    Args:
        start: its value before training.
    """

    def __init__(self, start: float) -> None:
        """Make the factor."""
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(start))

    def forward(self, logits: Tensor) -> Tensor:
        """Scaled logits [..., N] of logits [..., N]."""
        return self.factor * logits


@dataclass(frozen=True)
class MetaOptNet(MetaTraining):
    """Fits a linear classifier on the support set to optimality; the gradient goes through the fit.

    Args:
        solver: ``"ridge"`` regression onto one-hot labels, or Crammer and Singer's ``"svm"``.
        penalty: of ridge regression; the authors use 50 on unnormalized features.
        cost: of the SVM's hinge losses; the authors use 0.1.
        normalize: fit on features of length 1.
        scale: of the logits at the start; it is learned.
        reduction: of ridge regression's squared errors over the samples of the support set:
            ``"sum"``, or ``"mean"`` as in R2-D2, whose penalty is 50 too.
        jitter: added to the diagonal of the SVM's kernel matrix when it is solved; the authors'
            code adds 1, which changes logits by 2 to 8 %.

    Raises:
        InputError: a number is out of range, or there is a ``jitter`` that the solver has not.

    Example:
        >>> import torch
        >>> from omnitraining import MetaOptNet
        >>> algorithm = MetaOptNet(solver="ridge", penalty=1.0)
        >>> support, labels = 3 * torch.eye(2)[None], torch.tensor([[0, 1]])
        >>> classifier = algorithm.fit(algorithm.head(2, 2), support, labels, ways=2)
        >>> classifier(support).argmax(-1)  # of queries [T, Q, D]
        tensor([[0, 1]])
    """

    solver: Literal["ridge", "svm"] = "svm"
    penalty: float = 50.0
    cost: float = 0.1
    normalize: bool = False
    scale: float = 1.0
    reduction: Literal["sum", "mean"] = "sum"
    jitter: float = 0.0

    def __post_init__(self) -> None:
        check_positive("metatraining", self, "penalty", "cost", "scale")
        check_least("metatraining", self, 0, "jitter")
        if self.jitter and self.solver != "svm":
            raise InputError(
                f"metatraining.jitter is {self.jitter}, but metatraining.solver is "
                f"{self.solver!r}: only 'svm' has it"
            )

    def head(self, features: int, outputs: int) -> nn.Module:
        """The learned `Scale`; linear layers are solved for."""
        return Scale(self.scale)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [T, Q, N] against class indices [T, Q]."""
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Logits [T, Q, N]."""
        return self.outputs_of_heads(network, episode)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """Solved linear heads, followed by the learned scale."""
        if self.normalize:
            support = F.normalize(support, dim=-1)
        # Solvers do not support bfloat16, in which the backbone may compute.
        support = at_least_float32(support)
        with torch.autocast(support.device.type, enabled=False):
            targets = F.one_hot(labels, ways).to(support.dtype)
            gram = support @ support.mT
            if self.solver == "ridge":
                samples = gram.shape[-1] if self.reduction == "mean" else 1
                weights = ridge(gram, targets, self.penalty * samples)
            else:
                diagonal = self.jitter * torch.eye(
                    len(gram[0]), dtype=gram.dtype, device=gram.device
                )
                weights = support_vectors(gram + diagonal, targets, self.cost)
            linear = LinearClassifier((support.mT @ weights).mT, normalize=self.normalize)
        return nn.Sequential(linear, head)
