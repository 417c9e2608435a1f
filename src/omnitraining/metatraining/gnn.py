"""Graph neural networks for few-shot learning (Garcia & Bruna 2018 [26], as in [79]).

[26] V. Garcia, J. Bruna: "Few-Shot Learning with Graph Neural Networks", ICLR 2018,
https://arxiv.org/abs/1711.04043

[79] H.-Y. Tseng, H.-Y. Lee, J.-B. Huang, M.-H. Yang: "Cross-Domain Few-Shot Classification via
Learned Feature-Wise Transformation", ICLR 2020, https://arxiv.org/abs/2001.08735

In shapes, T is the number of tasks, G of graphs per task and n of nodes per graph.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.limits import check_least
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network

Form = Literal["transductive", "inductive"]
GRAPHS_AT_ONCE = 16  # at test; more would not fit CPU caches


class TaskNorm(nn.Module):
    """Normalizes by the statistics of each task's own nodes or edges, as [79] does.

    Batch norm without running statistics would mix the tasks of a batch.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        """Start as the identity after the norm."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        """Normalize over G and M, [T, G, M, C] -> [T, G, M, C].

        Args:
            x: nodes or edges [T, G, M, C].
            counts: how many equal nodes or edges an entry represents [M]; one if not given.
        """
        weights = x.new_ones(x.shape[2]) if counts is None else counts.to(x.dtype)
        weights = weights / weights.sum() / x.shape[1]
        centered = x - _mean(x, weights)
        factor = self.weight * torch.rsqrt(_mean(centered.square(), weights) + 1e-5)
        return torch.addcmul(self.bias, centered, factor)


def _mean(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over G and M, [T, 1, 1, C]."""
    return (weights @ x).sum(1)[:, None, None]


class RunningNorm(nn.BatchNorm1d):
    """Ordinary batch norm over nodes or edges, with running statistics for the test."""

    def forward(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        """Normalize over all but C, [T, G, M, C] -> [T, G, M, C].

        Args:
            x: nodes or edges [T, G, M, C].
            counts: how many equal nodes or edges an entry represents [M]; one if not given.
        """
        if counts is None or not self.training:
            return super().forward(x.flatten(0, -2)).view_as(x)
        each = x.repeat_interleave(counts, 2)
        return super().forward(each.flatten(0, -2)).view_as(each)[:, :, counts.cumsum(0) - 1]


class Adjacency(nn.Module):
    """Edge weights: a small network of |x_i - x_j|, softmax over the neighbors j.

    The network is computed once per unordered pair, and once for all pairs of a node with itself,
    whose difference is zero; that is half the work of all pairs and the same result.

    Args:
        inputs: size of a node.
        width: of the network.
        norm: after each of its layers.
    """

    def __init__(self, inputs: int, width: int, norm: type[TaskNorm | RunningNorm]) -> None:
        """Make four layers and the score."""
        super().__init__()
        sizes = [inputs, 2 * width, 2 * width, width, width]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(norm(size) for size in sizes[1:])
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weights [T, G, n, n] of nodes [T, G, n, C]."""
        nodes = x.shape[2]
        i, j = torch.triu_indices(nodes, nodes, 1, device=x.device)
        itself = torch.zeros_like(x[:, :, :1])
        edges = torch.cat([(x[:, :, i] - x[:, :, j]).abs(), itself], 2)
        counts = torch.full((len(i) + 1,), 2, device=x.device)
        counts[-1] = nodes
        for layer, norm in zip(self.layers, self.norms, strict=True):
            edges = F.leaky_relu(norm(layer(edges), counts))
        scores = self.score(edges).squeeze(-1)[..., :-1]
        square = scores.new_full((*x.shape[:3], nodes), -torch.inf)
        square[..., i, j] = scores
        square[..., j, i] = scores
        return torch.softmax(square, -1)


class GraphConvolution(nn.Module):
    """A linear layer of each node and the weighted mean of its neighbors.

    Args:
        inputs: size of a node.
        outputs: size of a node after the layer.
        norm: after the layer; none if None.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: type[TaskNorm | RunningNorm] | None
    ) -> None:
        """Make the layer."""
        super().__init__()
        self.linear = nn.Linear(2 * inputs, outputs)
        self.norm = norm(outputs) if norm else None

    def forward(self, adjacency: Tensor, x: Tensor) -> Tensor:
        """Nodes [T, G, n, outputs] of edge weights [T, G, n, n] and nodes [T, G, n, inputs]."""
        y: Tensor = self.linear(torch.cat([x, adjacency @ x], -1))
        return y if self.norm is None else self.norm(y)


class GraphNetwork(nn.Module):
    """An embedding, two graph layers that append features to the nodes, one with class logits.

    Node sizes are embedding + ways, then width / 2 more after each layer: 133, 181, 229 for the
    sizes of [79].

    Args:
        features: size of the backbone's features.
        ways: classes of a task; the weights depend on it.
        embedding: size of the node embedding.
        width: of the edge networks.
        form: which queries share a graph.
    """

    def __init__(self, features: int, ways: int, embedding: int, width: int, form: Form) -> None:
        """Make the layers, with the norm of the form."""
        super().__init__()
        norm = TaskNorm if form == "transductive" else RunningNorm
        self.ways, self.form = ways, form
        self.embed = nn.Linear(features, embedding)
        self.norm = norm(embedding)
        sizes = [embedding + ways + layer * (width // 2) for layer in range(3)]
        self.adjacencies = nn.ModuleList(Adjacency(size, width, norm) for size in sizes)
        self.layers = nn.ModuleList(GraphConvolution(n, width // 2, norm) for n in sizes[:2])
        self.last = GraphConvolution(sizes[2], ways, None)

    def forward(self, episode: Episode) -> Tensor:
        """Logits [T, Q, N] of the queries of an episode of features [T, S, D] and [T, Q, D]."""
        tasks, support = episode.support_y.shape
        x = self.norm(self.embed(torch.cat([episode.support_x, episode.query_x], 1))[:, None])
        labels = F.one_hot(episode.support_y, self.ways).to(x.dtype)
        x = torch.cat([x[:, 0], F.pad(labels, (0, 0, 0, episode.query_x.shape[1]))], -1)
        known, queries = x[:, :support], x[:, support:]
        if self.form == "transductive":  # query number g of every class in graph g
            queries = queries.unflatten(1, (self.ways, -1)).transpose(1, 2)
        else:
            queries = queries.unsqueeze(2)
        graphs = queries.shape[1]
        x = torch.cat([known.unsqueeze(1).expand(-1, graphs, -1, -1), queries], 2)
        for adjacency, layer in zip(self.adjacencies[:2], self.layers, strict=True):
            x = torch.cat([x, F.leaky_relu(layer(adjacency(x), x))], -1)
        logits: Tensor = self.last(self.adjacencies[2](x), x)[:, :, support:]
        return logits.transpose(1, 2).reshape(tasks, -1, self.ways)


@dataclass(frozen=True)
class GNN(MetaTraining):
    """Passes messages in a graph of support and query samples, with labels as node features.

    Queries must be sorted by class, as in `Episode`, and equally many of each.

    Args:
        embedding: size of the node embedding.
        width: of the edge networks.
        form: ``"transductive"``: a graph holds the support set and one query of *each* class, and
            all norms use the statistics of the whole query set, as in [79] and so in the GNN rows
            of the paper: predictions depend on the other queries, and use that the queries of a
            graph are of different classes. ``"inductive"``: one query per graph and running
            statistics, so that each query is classified by itself.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from omnitraining import GNN, Episode
        >>> labels = torch.tensor([[0, 1]])
        >>> episode = Episode(torch.rand(1, 2, 8), labels, torch.rand(1, 2, 8), labels, ways=2)
        >>> network = GNN(embedding=16, width=16).head(features=8, outputs=2)
        >>> network(episode).shape  # logits [T, Q, N]
        torch.Size([1, 2, 2])
    """

    embedding: int = 128
    width: int = 96
    form: Form = "transductive"

    fixed_ways = True

    def __post_init__(self) -> None:
        check_least("metatraining", self, 1, "embedding", "width")

    def head(self, features: int, outputs: int) -> nn.Module:
        """`GraphNetwork` for tasks of as many classes as there are outputs."""
        return GraphNetwork(features, outputs, self.embedding, self.width, self.form)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [T, Q, N] against class indices [T, Q]."""
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Logits [T, Q, N].

        Raises:
            InputError: tasks have other ways than in training, or queries are not equally many.
        """
        ways, queries = network.head.ways, episode.query_y.shape[1]
        if episode.ways != ways:
            raise InputError(f"this GNN was made for {ways} ways, and the task has {episode.ways}")
        if self.form == "transductive" and queries % episode.ways:
            raise InputError(
                f"a transductive GNN needs equally many queries of each class: {queries} queries "
                f"cannot be of {episode.ways} classes"
            )
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        graphs = queries // episode.ways if self.form == "transductive" else queries
        parts = embedded.split(max(1, GRAPHS_AT_ONCE // graphs))
        return torch.cat([network.head(part) for part in parts])

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """A head that keeps the support set, in the inductive form alone.

        Raises:
            InputError: the form is transductive.
        """
        if self.form == "transductive":
            raise InputError(
                "a transductive GNN predicts queries together, one of each class, and cannot "
                "predict queries of unknown classes: choose flow 'pre', or train it with form: "
                "inductive"
            )
        return super().fit(head, support, labels, ways)
