"""Matching networks with full context embeddings (Vinyals et al. 2016 [80], as in [13])."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode, class_means
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.precision import at_least_float32, in_full_precision

TASKS_AT_ONCE = 50  # at test; more would not fit CPU caches


class FullContext(nn.Module):
    """Full-context embeddings: of each support sample and each query, given the support set.

    g(x_i) = f(x_i) + both directions of an LSTM over the support set; a query is read by an LSTM
    that attends to all g(x_i) at every step. The LSTM over the support set needs an order, which a
    set does not have: classes come in the order in which their prototypes agree with the mean of
    the support set, and so do the samples of a class. Predictions hence do not depend on the order
    or the names in which a task happens to be given (in [13] they do).

    Args:
        features: size of the embeddings.
        steps: of attention; as many as there are support samples if None, as in [13].
    """

    def __init__(self, features: int, steps: int | None) -> None:
        super().__init__()
        self.steps = steps
        self.read_support = nn.LSTM(features, features, batch_first=True, bidirectional=True)
        self.read_query = nn.LSTMCell(2 * features, features)

    def forward(self, episode: Episode) -> tuple[Tensor, Tensor, Tensor]:
        """Support [T, S, D] with its labels [T, S], in their new order, and queries [T, Q, D]."""
        support, labels = self.support(episode.support_x, episode.support_y, episode.ways)
        return support, labels, self.query(episode.query_x, support)

    def support(self, support: Tensor, labels: Tensor, ways: int) -> tuple[Tensor, Tensor]:
        """Support samples [T, S, D] in view of each other, with their labels, in a new order."""
        order = _canonical_order(support, labels, ways)
        plain = support.gather(1, order.unsqueeze(-1).expand_as(support))
        context: Tensor = self.read_support(plain)[0]
        return plain + torch.stack(context.chunk(2, -1)).sum(0), labels.gather(1, order)

    def query(self, query: Tensor, support: Tensor) -> Tensor:
        """Queries [T, Q, D] in view of what `support` returns."""
        tasks, queries, size = query.shape
        hidden, cell = query, query.new_zeros(tasks * queries, size)
        for _ in range(self.steps or support.shape[1]):
            attention = torch.softmax(hidden @ support.mT, -1)
            inputs = torch.cat([query, attention @ support], -1).flatten(0, 1)
            read, cell = self.read_query(inputs, (hidden.flatten(0, 1), cell))
            hidden = read.view_as(query) + query
        return hidden


class Matching(nn.Module):
    """Log of class probabilities [T, Q, N] of queries [T, Q, D], given a support set that is read.

    Args:
        context: of the trained head.
        support: in its context [T, S, D].
        members: its labels, one-hot [T, S, N].
        scale: factor of the cosines.
    """

    def __init__(
        self, context: FullContext, support: Tensor, members: Tensor, scale: float
    ) -> None:
        super().__init__()
        self.context, self.scale = context, scale
        self.register_buffer("support", support)
        self.register_buffer("members", members)
        self.support: Tensor
        self.members: Tensor

    def forward(self, query: Tensor) -> Tensor:
        return self.similarities(self.context.query(query, self.support))

    @in_full_precision
    def similarities(self, query: Tensor) -> Tensor:
        """Outputs [T, Q, N] of queries in their context [T, Q, D]."""
        cosine = F.normalize(query, dim=-1) @ F.normalize(at_least_float32(self.support), dim=-1).mT
        attention = torch.softmax(self.scale * F.relu(cosine), -1)
        return torch.log(attention @ at_least_float32(self.members) + 1e-6)


@dataclass(frozen=True)
class MatchingNet(MetaTraining):
    """Classifies a query by the labels of the support samples, weighted by attention.

    The attention is a softmax over ``scale * relu(cosine)`` as in [13]; outputs are log of class
    probabilities.

    Args:
        scale: factor of the cosines.
        steps: of the query's attention; as many as there are support samples if None.
    """

    scale: float = 100.0
    steps: int | None = None

    def head(self, features: int, outputs: int) -> nn.Module:
        return FullContext(features, self.steps)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        parts = [
            self.fit(network.head, part.support_x, part.support_y, part.ways)(part.query_x)
            for part in embedded.split(TASKS_AT_ONCE)
        ]
        return torch.cat(parts)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        context = cast(FullContext, head)
        read, ordered = context.support(support, labels, ways)
        return Matching(context, read, F.one_hot(ordered, ways).to(read.dtype), self.scale)


@torch.no_grad()
def _canonical_order(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Order of the support samples [T, S] that does not depend on how they are given."""
    middle = support.mean(1, keepdim=True).mT
    agreement = (support @ middle).squeeze(-1)  # [T, S]
    prototypes = (class_means(support, labels, ways) @ middle).squeeze(-1)  # [T, N]
    by_sample = agreement.argsort(dim=1, stable=True)
    of_class = prototypes.gather(1, labels).gather(1, by_sample)
    return by_sample.gather(1, of_class.argsort(dim=1, stable=True))
