"""LEO on one task: pairs one by one, and inner gradients by autograd through the decoder."""

import torch
from torch import Tensor
from torch.nn import functional as F

from omnitraining.metatraining.leo import LatentCodes


def halves(x: Tensor, less: float) -> tuple[Tensor, Tensor]:
    mean, exponent = x.chunk(2, -1)
    return mean, (exponent.exp() - less).clamp_min(1e-10)


def sample(mean: Tensor, spread: Tensor, training: bool) -> Tensor:
    return mean + spread * torch.randn_like(mean) if training else mean


def classifiers(
    head: LatentCodes,
    support: Tensor,
    labels: Tensor,
    ways: int,
    steps: int,
    fine_steps: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [N, D] of one task, the divergence of its codes, and their drift."""
    training = head.training
    x = head.dropout(support)
    latents = x @ head.encode.weight.T
    related = []
    for n in range(ways):
        pairs = [
            head.relate(torch.cat([one, other]))
            for one, label in zip(latents, labels.tolist(), strict=True)
            for other in latents
            if label == n
        ]
        related.append(sum(pairs) / len(pairs))
    mean, spread = halves(torch.stack(related), 0.0)
    start = codes = sample(mean, spread, training)
    divergence = torch.zeros(())
    if training:
        density = -((codes - mean) ** 2) / (2 * spread**2) - spread.log()
        divergence = (density + codes**2 / 2).mean()  # constants cancel
    offset = (2 / (support.shape[1] + head.trained_ways)) ** 0.5

    def decoded(z: Tensor) -> Tensor:
        return sample(*halves(z @ head.decode.weight.T, 1 - offset), training)

    def loss(weight: Tensor) -> Tensor:
        return F.cross_entropy(x @ weight.T, labels)

    with torch.enable_grad():
        for _ in range(steps):
            codes = codes if codes.requires_grad else codes.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss(decoded(codes)), codes, create_graph=True)
            codes = codes - head.lr * slope
        weight = decoded(codes)
        for _ in range(fine_steps):
            (slope,) = torch.autograd.grad(loss(weight), weight, create_graph=True)
            weight = weight - head.fine_lr * slope
    return weight, divergence, ((start - codes.detach()) ** 2).mean()
