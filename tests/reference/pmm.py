"""PMM sample by sample, with angles in place of sines and cosines (Afrasiyabi et al. 2020)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def nearest(x: Tensor, components: Tensor, label: int, per_class: int) -> int:
    """Index of the component of its class that is nearest in angle to the features of a sample."""
    own = range(label * per_class, (label + 1) * per_class)
    return max(own, key=lambda i: F.cosine_similarity(x, components[i], dim=0).item())


def surprise(
    x: Tensor, directions: dict[int, Tensor], true: int, margin: float, temperature: float
) -> Tensor:
    """-log softmax of one sample; directions are not normalized, but below length 1 or of it."""
    logits = {}
    for index, direction in directions.items():
        cosine = F.normalize(x, dim=0) @ direction
        if index == true and cosine > 0:
            cosine = torch.cos(torch.acos(cosine) + margin)
        logits[index] = cosine / temperature
    return torch.logsumexp(torch.stack([*logits.values()]), 0) - logits[true]


def first_stage(
    x: Tensor, labels: Tensor, components: Tensor, per_class: int, margin: float, temperature: float
) -> Tensor:
    """Of features [B, D] and components [N P, D]."""
    unit = F.normalize(components, dim=-1)
    classes = len(unit) // per_class
    means = {n: unit[n * per_class : (n + 1) * per_class].mean(0).detach() for n in range(classes)}
    chosen = [nearest(*pair, per_class) for pair in each(x, labels, components)]
    present = {i: unit[i] for i in sorted({*chosen})}
    losses = [
        surprise(sample, means, label, margin, temperature)
        + surprise(sample, present, index, margin, temperature)
        for sample, label, index in zip(x, labels.tolist(), chosen, strict=True)
    ]
    return torch.stack(losses).mean()


def second_stage(
    x: Tensor, components: Tensor, chosen: list[int], margin: float, temperature: float
) -> Tensor:
    """Of features [B, D] whose components are chosen by the run that is followed."""
    unit = dict(enumerate(F.normalize(components, dim=-1)))
    losses = [
        surprise(sample, unit, index, margin, temperature)
        for sample, index in zip(x, chosen, strict=True)
    ]
    return torch.stack(losses).mean()


def each(x: Tensor, labels: Tensor, components: Tensor) -> list[tuple[Tensor, Tensor, int]]:
    return [(sample, components, label) for sample, label in zip(x, labels.tolist(), strict=True)]
