"""The graph network over all ordered pairs of nodes, a node's pair with itself included.

Edges are n x n, the diagonal is masked with -1e8 before the softmax, and every norm is torch's
batch norm over graphs x nodes or graphs x edges, as in CrossDomainFewShot (Tseng et al. 2020).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.metatraining.gnn import GraphNetwork


def logits(net: GraphNetwork, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    """Logits [Q, N] of the queries of one task, which come class by class.

    Running statistics of the network's norms are updated in training.
    """
    z = _norm(net.norm, F.linear(torch.cat([support, query]), net.embed.weight, net.embed.bias))
    known, ways = len(support), net.ways
    rows = [torch.cat([x, torch.eye(ways)[y]]) for x, y in zip(z[:known], labels, strict=True)]
    asked = [torch.cat([x, torch.zeros(ways)]) for x in z[known:]]
    each = len(asked) // ways
    if net.form == "transductive":
        members = [[c * each + g for c in range(ways)] for g in range(each)]
    else:
        members = [[q] for q in range(len(asked))]
    x = torch.stack([torch.stack(rows + [asked[q] for q in graph]) for graph in members])
    for adjacency, layer in zip(net.adjacencies[:2], net.layers, strict=True):
        new = F.leaky_relu(_norm(layer.norm, _convolve(layer, _weights(adjacency, x), x)), 0.01)
        x = torch.cat([x, new], -1)
    scores = _convolve(net.last, _weights(net.adjacencies[2], x), x)
    found = torch.zeros(len(asked), ways)
    for graph, of_graph in zip(members, scores, strict=True):
        for place, q in enumerate(graph):
            found[q] = of_graph[known + place]
    return found


def _weights(adjacency: nn.Module, x: Tensor) -> Tensor:
    """Neighbors' weights [G, n, n]."""
    nodes = x.shape[1]
    edges = torch.stack(
        [torch.stack([(x[:, i] - x[:, j]).abs() for j in range(nodes)], 1) for i in range(nodes)], 1
    )
    for layer, norm in zip(adjacency.layers, adjacency.norms, strict=True):
        edges = F.leaky_relu(_norm(norm, F.linear(edges, layer.weight, layer.bias)), 0.01)
    scores = F.linear(edges, adjacency.score.weight, adjacency.score.bias).squeeze(-1)
    return torch.softmax(scores - 1e8 * torch.eye(nodes), -1)


def _convolve(layer: nn.Module, weights: Tensor, x: Tensor) -> Tensor:
    neighbors = torch.einsum("gij,gjc->gic", weights, x)
    return F.linear(torch.cat([x, neighbors], -1), layer.linear.weight, layer.linear.bias)


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Batch norm over all but the channels, with running statistics if the norm has them."""
    running = getattr(norm, "running_mean", None), getattr(norm, "running_var", None)
    batch = running[0] is None or norm.training
    rows = F.batch_norm(x.flatten(0, -2), *running, norm.weight, norm.bias, training=batch)
    return rows.view_as(x)
