"""Relation networks pair by pair: both maps are stacked and read by an ordinary network."""

import torch
from torch import Tensor, nn

from omnitraining.metatraining.relationnet import Relation


def plain(relation: Relation) -> nn.Sequential:
    """The published relation module, with the weights of ours."""
    channels, hidden = relation.channels, relation.fc1.out_features
    net = nn.Sequential(
        nn.Conv2d(2 * channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(relation.fc1.in_features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 1),
    )
    weights = zip(net.state_dict(), relation.state_dict().values(), strict=True)
    net.load_state_dict(dict(weights))
    return net.train(relation.training)


def pairs(
    support: Tensor, labels: Tensor, query: Tensor, ways: int, channels: int, side: int
) -> Tensor:
    """Stacked maps [Q * N, 2 C, H, W] of one task, query by query: class map first."""
    maps = []
    for x in query:
        for n in range(ways):
            members = [s for s, y in zip(support, labels, strict=True) if y == n]
            mean = sum(members) / len(members)
            maps.append(torch.cat([v.view(channels, side, side) for v in (mean, x)]))
    return torch.stack(maps)
