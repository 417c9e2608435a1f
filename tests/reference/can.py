"""Cross attention as published: every pair has its whole matrix of correlations [M, M]."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.metatraining.can import CrossAttention


def attention(head: CrossAttention, correlations: Tensor) -> Tensor:
    """[P, M] of correlations [P, M, M] of P pairs: softmax of W_2 relu(norm(W_1 GAP(R))) r_i."""
    fusion = head.fusion
    pooled = torch.stack([r.mean(0) for r in correlations])
    inner = F.relu(fusion.norm(pooled @ fusion.reduce.weight.T + fusion.reduce.bias))
    kernels = inner @ fusion.expand.weight.T + fusion.expand.bias
    rows = []
    for r, kernel in zip(correlations, kernels, strict=True):
        scores = torch.stack([(row * kernel).mean() for row in r])
        rows.append(1 + (scores / fusion.temperature).softmax(0))
    return torch.stack(rows)


def attended(head: CrossAttention, classes: Tensor, queries: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Attended class and query maps [C, M] of every pair, query by query, of one task.

    Class maps are [N, C, M], query maps [Q, C, M]. Both directions are one batch of the norm.
    """
    pairs = [(p, q) for q in queries for p in classes]
    unit = [(F.normalize(p, dim=0), F.normalize(q, dim=0)) for p, q in pairs]
    matrices = torch.stack([p.T @ q for p, q in unit])
    both = attention(head, torch.cat([matrices, matrices.mT]))
    return [
        (p * a, q * b)
        for (p, q), a, b in zip(pairs, both[: len(pairs)], both[len(pairs) :], strict=True)
    ]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm() * b.norm())


def logits(maps: list[tuple[Tensor, Tensor]], ways: int, scale: float) -> Tensor:
    """[Q, N]: scaled cosines of mean maps."""
    cosines = [cosine(p.mean(1), q.mean(1)) for p, q in maps]
    return scale * torch.stack(cosines).view(-1, ways)


def losses(
    maps: list[tuple[Tensor, Tensor]], labels: list[int], classes: list[int], scale: float,
    classifier: nn.Linear, ways: int,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """L_1 and L_2 of every position of every query of one task."""
    near, among_all = [], []
    for number, label in enumerate(labels):
        own = maps[number * ways : (number + 1) * ways]
        for m in range(own[0][0].shape[1]):
            scores = torch.stack([scale * cosine(p.mean(1), q[:, m]) for p, q in own])
            near.append(torch.logsumexp(scores, 0) - scores[label])
            scores = classifier(own[label][1][:, m])
            among_all.append(torch.logsumexp(scores, 0) - scores[classes[label]])
    return near, among_all
