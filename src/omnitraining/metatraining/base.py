"""The base class of meta-training algorithms."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from omnitraining.algorithm import Algorithm
from omnitraining.batches import Episode
from omnitraining.network import Network


class MetaTraining(Algorithm):
    """Learns to predict a query set given a support set, from episodes (eq. 2).

    An algorithm is a frozen dataclass of options, without weights.

    Example:
        Inner products with class means:

        >>> from dataclasses import dataclass
        >>> import torch
        >>> from torch import nn
        >>> from omnitraining import Episode, MetaTraining
        >>> @dataclass(frozen=True)
        ... class Means(MetaTraining):
        ...     def head(self, features, outputs):
        ...         return nn.Identity()
        ...
        ...     def loss(self, outputs, targets):
        ...         return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())
        ...
        ...     def predict(self, network, episode):
        ...         features = episode.with_inputs(network(episode.inputs()))
        ...         return features.query_x @ features.prototypes().mT
        >>> x, y = torch.eye(2)[None], torch.tensor([[0, 1]])
        >>> Means().predict(nn.Identity(), Episode(x, y, x, y, ways=2))
        tensor([[[1., 0.],
                 [0., 1.]]])
    """

    fixed_ways: ClassVar[bool] = False
    """Whether test tasks must have as many classes as training tasks."""

    task: str | None = None
    """Kind of problem that it is configured for, where that is an option; see `Problem.kind`."""

    @abstractmethod
    def head(self, features: int, outputs: int) -> nn.Module:
        """H_meta, applied to features [B, features]; the identity if there is nothing to train."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """l_meta, the mean over queries; a scalar.

        Args:
            outputs: of the queries [T, Q, O].
            targets: class indices [T, Q], or values [T, Q, O].
        """

    @abstractmethod
    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Outputs [T, Q, O] of the queries given the support sets, in training and at test.

        Args:
            network: backbone and head.
            episode: T tasks.
        """
