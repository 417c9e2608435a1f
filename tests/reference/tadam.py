"""TADAM on one task, with a backbone whose modulations are written out, norm by norm."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.network import Network

Pairs = Mapping[str, tuple[Tensor, Tensor]]


class Backbone(nn.Module):
    """Two linear layers with norms, the second one with a shortcut."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear1, self.norm1 = nn.Linear(inputs, 5), nn.BatchNorm1d(5)
        self.linear2, self.norm2 = nn.Linear(5, 8), nn.BatchNorm1d(8)
        self.shortcut = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm1(self.linear1(x)))
        return self.norm2(self.linear2(x)) + self.shortcut(x)


def embed(net: Backbone, x: Tensor, pairs: Pairs | None) -> Tensor:
    """Features [B, 8], with scales and shifts after the norms if they are given."""

    def after(name: str, y: Tensor) -> Tensor:
        return y if pairs is None else pairs[name][0] * y + pairs[name][1]

    x = torch.tanh(after("norm1", net.norm1(net.linear1(x))))
    return after("norm2", net.norm2(net.linear2(x))) + net.shortcut(x)


def predicted(layers: nn.ModuleList, task: Tensor) -> Tensor:
    """Three layers; the second and the third have a shortcut; swish between them."""
    first, second, third = layers
    x = F.silu(first(task))
    x = F.silu(second(x) + x)
    return third(x) + x


def prototypes(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    return torch.stack([features[labels == n].mean(0) for n in range(ways)])


def logits(
    network: Network, support: Tensor, labels: Tensor, query: Tensor, ways: int, metric: str
) -> Tensor:
    """[Q, N] of one task; support and query pass the modulated backbone together."""
    head, backbone = network.head, network.backbone
    task = prototypes(embed(backbone, support, None), labels, ways).mean(0)
    pairs = {}
    for number, path in enumerate(("norm1", "norm2")):
        gamma, beta = head.multipliers[0, number], head.multipliers[1, number]
        scale = gamma * predicted(head.scales[number].layers, task) + 1
        pairs[path] = scale, beta * predicted(head.shifts[number].layers, task)
    features = embed(backbone, torch.cat([support, query]), pairs)
    known, asked = features[: len(support)], features[len(support) :]
    if metric == "cosine":
        known = F.normalize(known, dim=-1)
    centers = prototypes(known, labels, ways)
    if metric == "distance":
        rows = [torch.stack([-(x - c).norm() for c in centers]) for x in asked]
    else:
        rows = [torch.stack([F.cosine_similarity(x, c, dim=0) for c in centers]) for x in asked]
    return head.factor * torch.stack(rows)
