"""The base class of pre-training and meta-training algorithms: prediction on new tasks."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.heads import SupportConditionedHead
from omnitraining.network import Network


class Algorithm(ABC):
    """Options of an algorithm. It has no weights: the head that it makes belongs to the model."""

    @property
    def needs_only_features(self) -> bool:
        """Whether `predict` leaves the backbone as it is, so that features can be computed once."""
        return True

    @abstractmethod
    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Outputs [T, Q, O] for the queries of tasks, given their support sets.

        Args:
            network: backbone and head of training.
            episode: T tasks.
        """

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """A head for new tasks: a module from query features [T, Q, D] to outputs [T, Q, N].

        It predicts as `predict` does. This one keeps the support set and calls `predict` with every
        query set; algorithms that can solve for their head once override it.

        Args:
            head: of training.
            support: features [T, S, D].
            labels: class indices [T, S].
            ways: number of classes N.

        Raises:
            InputError: the algorithm cannot predict queries of unknown classes.
        """
        return SupportConditionedHead(self, head, support, labels, ways)

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        """A copy of a network adapted to one task; for algorithms that change the features.

        Args:
            network: backbone and head of training.
            x: support inputs [S, ...].
            y: class indices [S], or values [S, D].

        Raises:
            InputError: the algorithm fits heads and does not adapt networks.
        """
        raise InputError(f"{type(self).__name__} does not adapt networks: it fits heads")
