"""What a pre-training algorithm is."""

from abc import abstractmethod

from torch import Tensor, nn

from omnitraining.algorithm import Algorithm
from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.network import Network


class PreTraining(Algorithm):
    """Learns one pretext task from mini-batches; at test a new head is fitted (eq. 1).

    An algorithm holds options and no weights: the head it makes belongs to the model.
    """

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
        raise InputError(f"{type(self).__name__} has no generations: 'teacher_run' is for RFS")

    @abstractmethod
    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Outputs [T, Q, O] for the queries of new tasks, each with its own new head H_new.

        Args:
            network: backbone and the head of training.
            episode: T new tasks.
        """
