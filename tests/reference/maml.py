"""MAML on a two-layer perceptron, with the inner gradient written out by hand (below eq. 19).

The hand-written gradient is an ordinary expression of the weights, so that differentiating the
result gives the second-order outer gradient without any double backward.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = list[Tensor]  # W1 [H, I], b1 [H], W2 [O, H], b2 [O]


def forward(weights: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    w1, b1, w2, b2 = weights
    hidden = torch.tanh(x @ w1.T + b1)
    return hidden, hidden @ w2.T + b2


def slope(weights: Weights, x: Tensor, y: Tensor) -> Weights:
    """Gradient of the mean squared error, or of the cross-entropy where y are class indices."""
    hidden, outputs = forward(weights, x)
    if y.is_floating_point():
        error = 2 * (outputs - y) / y.numel()
    else:
        error = (outputs.softmax(-1) - F.one_hot(y, outputs.shape[-1])) / len(y)
    back = (error @ weights[2]) * (1 - hidden**2)
    return [back.T @ x, back.sum(0), error.T @ hidden, error.sum(0)]


def adapted(
    weights: Weights,
    support: tuple[Tensor, Tensor],
    query: Tensor,
    steps: int,
    lr: float,
    second_order: bool = True,
) -> Tensor:
    """Outputs for the queries [Q, O] after gradient steps on the support set."""
    for _ in range(steps):
        slopes = slope(weights, *support)
        if not second_order:
            slopes = [s.detach() for s in slopes]
        weights = [w - lr * s for w, s in zip(weights, slopes, strict=True)]
    return forward(weights, query)[1]
