"""Matching networks, with full-context embeddings or without (Vinyals et al. 2016 [80], [13]).

[80] O. Vinyals, C. Blundell, T. Lillicrap, K. Kavukcuoglu, D. Wierstra: "Matching Networks for One
Shot Learning", NeurIPS 2016, https://arxiv.org/abs/1606.04080

[13] W.-Y. Chen, Y.-C. Liu, Z. Kira, Y.-C. F. Wang, J.-B. Huang: "A Closer Look at Few-shot
Classification", ICLR 2019, https://arxiv.org/abs/1904.04232
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode, class_means
from omnitraining.errors import InputError
from omnitraining.limits import check_least, check_positive
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.precision import at_least_float32, in_full_precision

Order = Literal["canonical", "given"]

TASKS_AT_ONCE = 50  # at test; more would not fit CPU caches


class FullContext(nn.Module):
    """Full-context embeddings of support samples and of queries, both in the support set's context.

    g(x_i) = f(x_i) + both directions of an LSTM over the support set; a query goes through an LSTM
    that attends to all g(x_i) at every step ([80], appendix A). The LSTM over the support set needs
    an order, which a set does not have. In the canonical order, classes are sorted by the inner
    product of their prototype and the mean of the support set, and the samples of a class by their
    inner product with it: predictions do not depend on the order of samples and classes in a task.
    In the given order, as in [13], they do.

    Args:
        features: size of the embeddings.
        steps: of attention; if None, the number of support samples, as in [13].
        order: as in `MatchingNet`.
    """

    def __init__(self, features: int, steps: int | None, order: Order = "canonical") -> None:
        """Make both LSTMs."""
        super().__init__()
        self.steps, self.order = steps, order
        self.read_support = nn.LSTM(features, features, batch_first=True, bidirectional=True)
        self.read_query = nn.LSTMCell(2 * features, features)

    def forward(self, episode: Episode) -> tuple[Tensor, Tensor, Tensor]:
        """Support [T, S, D] and its labels [T, S], both in order, and queries [T, Q, D]."""
        support, labels = self.support(episode.support_x, episode.support_y, episode.ways)
        return support, labels, self.query(episode.query_x, support)

    def support(self, support: Tensor, labels: Tensor, ways: int) -> tuple[Tensor, Tensor]:
        """Full-context embeddings g of the support set, [T, S, D], and its labels [T, S], in order.

        Args:
            support: features [T, S, D].
            labels: class indices [T, S].
            ways: number of classes.
        """
        if self.order == "canonical":
            order = _canonical_order(support, labels, ways)
            support = support.gather(1, order.unsqueeze(-1).expand_as(support))
            labels = labels.gather(1, order)
        context: Tensor = self.read_support(support)[0]
        return support + torch.stack(context.chunk(2, -1)).sum(0), labels

    def query(self, query: Tensor, support: Tensor) -> Tensor:
        """Full-context embeddings of queries, [T, Q, D].

        Args:
            query: features [T, Q, D].
            support: full-context embeddings of the support set [T, S, D].
        """
        tasks, queries, size = query.shape
        hidden, cell = query, query.new_zeros(tasks * queries, size)
        for _ in range(self.steps or support.shape[1]):
            attention = torch.softmax(hidden @ support.mT, -1)
            inputs = torch.cat([query, attention @ support], -1).flatten(0, 1)
            output, cell = self.read_query(inputs, (hidden.flatten(0, 1), cell))
            hidden = output.view_as(query) + query
        return hidden


class NoContext(nn.Module):
    """Embeddings that are the features themselves: no sample changes that of another."""

    def support(self, support: Tensor, labels: Tensor, ways: int) -> tuple[Tensor, Tensor]:
        """The features [T, S, D] and labels [T, S] of the support set.

        Args:
            support: features [T, S, D].
            labels: class indices [T, S].
            ways: number of classes.
        """
        return support, labels

    def query(self, query: Tensor, support: Tensor) -> Tensor:
        """The features of queries [T, Q, D].

        Args:
            query: features [T, Q, D].
            support: features of the support set [T, S, D].
        """
        return query


class Matching(nn.Module):
    """A head that weights the labels of the support samples by attention.

    Args:
        context: the trained head.
        support: embeddings [T, S, D].
        members: labels of the support set, one-hot [T, S, N].
        scale: factor of the cosines.
    """

    def __init__(
        self, context: FullContext | NoContext, support: Tensor, members: Tensor, scale: float
    ) -> None:
        """Register the support set as buffers."""
        super().__init__()
        self.context, self.scale = context, scale
        self.register_buffer("support", support)
        self.register_buffer("members", members)
        self.support: Tensor
        self.members: Tensor

    def forward(self, query: Tensor) -> Tensor:
        """Log of class probabilities [T, Q, N] of query features [T, Q, D]."""
        return self.similarities(self.context.query(query, self.support))

    @in_full_precision
    def similarities(self, query: Tensor) -> Tensor:
        """Log of class probabilities [T, Q, N] of embedded queries [T, Q, D]."""
        cosine = F.normalize(query, dim=-1) @ F.normalize(at_least_float32(self.support), dim=-1).mT
        attention = torch.softmax(self.scale * F.relu(cosine), -1)
        return torch.log(attention @ at_least_float32(self.members) + 1e-6)


@dataclass(frozen=True)
class MatchingNet(MetaTraining):
    """Classifies a query by the labels of the support samples, weighted by attention.

    The attention is a softmax over ``scale * relu(cosine)`` as in [13]; outputs are logarithms of
    class probabilities.

    Args:
        scale: factor of the cosines.
        steps: of the query's attention; if None, the number of support samples.
        order: in which the support set is read: ``"canonical"``, by its contents, so that
            predictions do not depend on the order of the examples; or ``"given"``, as in [13].
        context: embed each sample in the context of the support set ([80], 2.1.2). Without, as
            [80] has it on Omniglot, the embeddings are the features.

    Raises:
        InputError: a number is out of range, or ``steps`` or ``order`` is given without context.

    Example:
        >>> import torch
        >>> from omnitraining import MatchingNet
        >>> algorithm = MatchingNet()
        >>> support, labels = torch.rand(1, 4, 8), torch.tensor([[0, 0, 1, 1]])
        >>> classifier = algorithm.fit(algorithm.head(8, 2), support, labels, ways=2)
        >>> probabilities = classifier(torch.rand(1, 3, 8)).exp()  # [T, Q, N]
        >>> torch.allclose(probabilities.sum(-1), torch.ones(1, 3), atol=1e-4)
        True
    """

    scale: float = 100.0
    steps: int | None = None
    order: Order = "canonical"
    context: bool = True

    def __post_init__(self) -> None:
        check_positive("metatraining", self, "scale")
        check_least("metatraining", self, 1, "steps")
        for name, default in (("steps", None), ("order", "canonical")):
            if not self.context and getattr(self, name) != default:
                raise InputError(
                    f"metatraining.{name} is {getattr(self, name)!r}: it is for context: true"
                )

    def head(self, features: int, outputs: int) -> nn.Module:
        """The LSTMs of `FullContext`, or `NoContext`."""
        return FullContext(features, self.steps, self.order) if self.context else NoContext()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of log-probabilities [T, Q, N] against class indices [T, Q]."""
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Log of class probabilities [T, Q, N]."""
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        parts = [
            self.fit(network.head, part.support_x, part.support_y, part.ways)(part.query_x)
            for part in embedded.split(TASKS_AT_ONCE)
        ]
        return torch.cat(parts)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """`Matching` to the embeddings of the support set."""
        context = cast(FullContext | NoContext, head)
        embedded, ordered = context.support(support, labels, ways)
        members = F.one_hot(ordered, ways).to(embedded.dtype)
        return Matching(context, embedded, members, self.scale)


@torch.no_grad()
def _canonical_order(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Indices [T, S] that sort the support samples, whatever order they are given in."""
    middle = support.mean(1, keepdim=True).mT
    agreement = (support @ middle).squeeze(-1)  # [T, S]
    prototypes = (class_means(support, labels, ways) @ middle).squeeze(-1)  # [T, N]
    by_sample = agreement.argsort(dim=1, stable=True)
    of_class = prototypes.gather(1, labels).gather(1, by_sample)
    return by_sample.gather(1, of_class.argsort(dim=1, stable=True))
