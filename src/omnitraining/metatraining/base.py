"""What a meta-training algorithm is."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from omnitraining.algorithm import Algorithm
from omnitraining.batches import Episode
from omnitraining.network import Network


class MetaTraining(Algorithm):
    """Learns to predict a query set given a support set, from episodes (eq. 2).

    An algorithm holds options and no weights: the head it makes belongs to the model.
    """

    fixed_ways: ClassVar[bool] = False
    """Whether test tasks must have as many classes as training tasks."""

    @abstractmethod
    def head(self, features: int, outputs: int) -> nn.Module:
        """H_meta, applied to features; the identity where the metric is the head."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """l_meta of query outputs, the mean over queries."""

    @abstractmethod
    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Query outputs [T, Q, O], conditioned on the support sets; training and test alike.

        Args:
            network: backbone and head.
            episode: T tasks.
        """
