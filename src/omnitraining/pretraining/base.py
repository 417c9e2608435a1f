"""What a pre-training algorithm is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.heads import SupportSets
from omnitraining.network import Network


class PreTraining(ABC):
    """Learns one pretext task from mini-batches; at test a new head is fitted (eq. 1).

    An algorithm holds options and no weights: the head it makes belongs to the model.
    """

    needs_only_features: ClassVar[bool] = True
    """Whether features do not change in `predict`, so that they may be computed once for all."""

    @abstractmethod
    def head(self, features: int, outputs: int) -> nn.Module:
        """H_pre: from features [B, features] to outputs [B, outputs]."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """l_pre, the mean over samples."""

    def loss_after(self, outputs: Tensor, targets: Tensor, previous: Tensor) -> Tensor:
        """l_pre of a generation that learns from the outputs of the one before it.

        Raises:
            InputError: the algorithm has no generations.
        """
        raise InputError(f"{type(self).__name__} has no generations: 'previous' is for RFS")

    @abstractmethod
    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Outputs [T, Q, O] for the queries of new tasks, each with its own new head H_new.

        Args:
            network: backbone and the head of training.
            episode: T new tasks.
        """

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """A head for new tasks: a module from query features [T, Q, D] to outputs [T, Q, N].

        What it returns predicts as `predict` does. This one keeps the support set and reads it
        anew with every query set; algorithms override it that can solve for their head once.

        Args:
            head: of training.
            support: features [T, S, D].
            labels: class indices [T, S].
            ways: number of classes N.

        Raises:
            InputError: the algorithm cannot predict queries of unknown classes.
        """
        return SupportSets(self, head, support, labels, ways)

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        """A copy of a network adapted to one task; for algorithms that change the features.

        Args:
            network: backbone and head of training.
            x: support inputs [S, ...].
            y: labels [S], or values [S, D].
        """
        raise InputError(f"{type(self).__name__} does not adapt networks: it fits heads")
