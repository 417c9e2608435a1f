"""Losses, prototypes and the moving average, one sample at a time."""

import math

import torch
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """Eq. 16, the mean over samples."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total += math.log(sum(math.exp(value) for value in row)) - row[label]
    return total / len(labels)


def mean_square(first: Tensor, second: Tensor) -> float:
    """Eq. 10, 13 and 17, the mean over samples and outputs."""
    pairs = list(zip(first.flatten().tolist(), second.flatten().tolist(), strict=True))
    return sum((a - b) ** 2 for a, b in pairs) / len(pairs)


def softmax(row: list[float]) -> list[float]:
    parts = [math.exp(value) for value in row]
    return [part / sum(parts) for part in parts]


def moving_average(values: list[Tensor], alpha: float) -> Tensor:
    """Eq. 9 in closed form: alpha^n theta_0 + (1 - alpha) sum_i alpha^(n-i) theta_i."""
    last = len(values) - 1
    recent = sum(alpha ** (last - i) * values[i] for i in range(1, last + 1))
    return alpha**last * values[0] + (1 - alpha) * recent


def prototype_logits(
    support: Tensor, labels: Tensor, query: Tensor, ways: int, metric: str, scale: float
) -> Tensor:
    """Eq. 20 for one task: [Q, N]."""

    def unit(v: Tensor) -> Tensor:
        return v / (v * v).sum() ** 0.5

    cosine = metric == "cosine"
    logits = torch.zeros(len(query), ways)
    for n in range(ways):
        members = [x for x, y in zip(support, labels, strict=True) if y == n]
        members = [unit(x) for x in members] if cosine else members
        prototype = sum(members) / len(members)
        for q, x in enumerate(query):
            if cosine:
                logits[q, n] = scale * (unit(x) * unit(prototype)).sum()
            else:
                square = ((x - prototype) ** 2).sum()
                logits[q, n] = -scale * (square**0.5 if metric == "distance" else square)
    return logits
