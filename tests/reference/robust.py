"""Robust ensembles, network by network and sample by sample (Dvornik et al. 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def others(logits: Tensor, label: int, temperature: float) -> Tensor:
    """Probabilities of all classes but the true one [N - 1]."""
    p = torch.softmax(logits / temperature, -1)
    left = torch.cat([p[:label], p[label + 1 :]])
    return left / left.sum()


def loss(
    logits: Sequence[Tensor], labels: Tensor, relation: str, weight: float, temperature: float
) -> Tensor:
    """Of the logits [B, N] of every network that takes part."""
    total = sum(F.cross_entropy(each, labels) for each in logits)
    pairs = [(j, k) for j in range(len(logits)) for k in range(len(logits)) if j != k]
    psi = []
    for sample, label in enumerate(labels.tolist()):
        p = [others(each[sample], label, temperature) for each in logits]
        for j, k in pairs:
            if relation == "diversity":
                psi.append(F.cosine_similarity(p[j], p[k], dim=0))
            else:
                psi.append((p[j] * (p[j] / p[k]).log()).sum())
    return total + weight * torch.stack(psi).mean() if psi else total


def distillation(
    student: Tensor, teachers: Sequence[Tensor], labels: Tensor, weight: float, temperature: float
) -> Tensor:
    """Of the logits [B, N] of one network and of its teachers."""
    target = sum(torch.softmax(each / temperature, -1) for each in teachers) / len(teachers)
    own = torch.softmax(student / temperature, -1)
    divergence = (target * (target / own).log()).sum(-1).mean()
    cross_entropy = F.cross_entropy(student, labels)
    return weight * temperature**2 * divergence + (1 - weight) * cross_entropy


def probabilities(
    support: Sequence[Tensor], labels: Tensor, query: Sequence[Tensor], ways: int
) -> Tensor:
    """[Q, N] of one task: the mean over networks, whose features [S, D] and [Q, D] are given."""
    each = []
    for known, asked in zip(support, query, strict=True):
        means = [known[labels == n].mean(0) for n in range(ways)]
        cosines = [F.cosine_similarity(asked, mean[None], dim=-1) for mean in means]
        each.append(torch.softmax(20 * torch.stack(cosines, -1), -1))
    return sum(each) / len(each)
