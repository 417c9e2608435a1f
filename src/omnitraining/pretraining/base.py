"""Base classes of pre-training algorithms."""

from abc import abstractmethod

from torch import Tensor, nn

from omnitraining.algorithm import Algorithm
from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.losses import cross_entropy
from omnitraining.network import Network
from omnitraining.pretraining.linear_heads import LinearHead


class PreTraining(Algorithm):
    """Learns one pretext task from mini-batches; at test a new head is fitted (eq. 1).

    An algorithm is a frozen dataclass of options, without weights.

    Example:
        A classifier with label smoothing:

        >>> from dataclasses import dataclass
        >>> import torch
        >>> from torch import nn
        >>> from omnitraining import LogisticHead, PreTraining
        >>> @dataclass(frozen=True)
        ... class Smoothed(PreTraining):
        ...     smoothing: float = 0.1
        ...
        ...     def head(self, features, outputs):
        ...         return nn.Linear(features, outputs)
        ...
        ...     def loss(self, outputs, targets):
        ...         criterion = nn.CrossEntropyLoss(label_smoothing=self.smoothing)
        ...         return criterion(outputs, targets)
        ...
        ...     def predict(self, network, episode):
        ...         return LogisticHead().predict(network.backbone, episode)
        >>> Smoothed().loss(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0]))
        tensor(0.6931)
    """

    @abstractmethod
    def head(self, features: int, outputs: int) -> nn.Module:
        """H_pre: from features [B, features] to outputs [B, outputs]."""

    def head_for(self, backbone: nn.Module, features: int, outputs: int) -> nn.Module:
        """H_pre of a backbone, which `head` makes unless more than sizes decides it.

        Args:
            backbone: F, from inputs [B, ...] to features [B, features].
            features: their size.
            outputs: classes of training.
        """
        return self.head(features, outputs)

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """l_pre, the mean over samples; a scalar.

        Args:
            outputs: of the head [B, O].
            targets: class indices [B], or values [B, O].
        """

    def distillation_loss(self, outputs: Tensor, targets: Tensor, teacher_logits: Tensor) -> Tensor:
        """l_pre of a generation that is taught by the generation before it; a scalar.

        Args:
            outputs: of this generation [B, O].
            targets: class indices [B].
            teacher_logits: outputs [B, O] of the generation before, for the same inputs.

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


class LinearPreTraining(PreTraining):
    """Pre-training of a classifier; at test a new linear head on frozen features.

    Attributes:
        new_head: how H_new is fitted; an option of each algorithm, with its own default.
    """

    new_head: LinearHead

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [B, N] against class indices [B] (eq. 16)."""
        return cross_entropy(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Logits [T, Q, N] of the queries, by new heads on frozen features."""
        return self.new_head.predict(network.backbone, episode)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """New linear heads [T, Q, D] -> [T, Q, N]; the head of training is not used."""
        return self.new_head.fit(support, labels, ways)
