"""The base class of meta-training algorithms."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from omnitraining.algorithm import Algorithm
from omnitraining.batches import Episode, MiniBatch
from omnitraining.curriculum import Curriculum
from omnitraining.errors import InputError
from omnitraining.network import Network
from omnitraining.precision import at_least_float32


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

    @property
    def fixed_ways(self) -> bool:
        """Whether test tasks must have as many classes as training tasks."""
        return False

    @property
    def limited_ways(self) -> bool:
        """Whether test tasks may have at most as many classes as training tasks."""
        return False

    @property
    def task(self) -> str | None:
        """Kind of problem that it is configured for, where that is an option: `Problem.kind`."""
        return None

    @property
    def domains(self) -> int:
        """Number of training domains that every step has tasks of."""
        return 1

    @property
    def needs_batch(self) -> bool:
        """Whether its loss uses the mini-batch; by default, if `outputs_and_loss` is overridden.

        If no loss uses it, the mini-batch of a step is empty.
        """
        return type(self).outputs_and_loss is not MetaTraining.outputs_and_loss

    def curriculum(self, classes: int) -> Curriculum | None:
        """Chooses the classes of training tasks by earlier tasks; None if tasks are of all classes.

        Args:
            classes: outputs of pre-training: in classification, the classes of training.
        """
        return None

    def takes_ways(self, ways: int, trained: int) -> bool:
        """Whether it answers tasks of some ways after training on tasks of ``trained`` ways."""
        return ways == trained or not (self.fixed_ways or (self.limited_ways and ways > trained))

    @abstractmethod
    def head(self, features: int, outputs: int) -> nn.Module:
        """H_meta, applied to features [B, features]; the identity if there is nothing to train."""

    def head_for(self, backbone: nn.Module, features: int, outputs: int, classes: int) -> nn.Module:
        """H_meta of a backbone, which `head` makes unless more than sizes decides it.

        Args:
            backbone: F, from inputs [B, ...] to features [B, features].
            features: their size.
            outputs: of the queries, O.
            classes: outputs of pre-training: in classification, the classes of training.
        """
        return self.head(features, outputs)

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

    def outputs_of_heads(
        self, network: Network, episode: Episode, tasks: int | None = None
    ) -> Tensor:
        """Outputs [T, Q, O] of the queries by the heads that `fit` makes, in float32 at least.

        It implements `predict` for algorithms that solve for a head without its own precision.

        Args:
            network: backbone and head.
            episode: T tasks.
            tasks: tasks whose heads are fitted at once; all if None.
        """
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        outputs = []
        for part in embedded.split(tasks) if tasks else [embedded]:
            head = self.fit(network.head, part.support_x, part.support_y, part.ways)
            with torch.autocast(part.query_x.device.type, enabled=False):
                outputs.append(head(at_least_float32(part.query_x)))
        return torch.cat(outputs) if tasks else outputs[0]

    def prepared(self, episode: Episode, random: torch.Generator) -> Episode:
        """The tasks of a training step, prepared for training; by default as they were drawn.

        Called before any layer, where `Supervised.samples` draws the tasks; inputs are the model's
        inputs, already augmented one by one.

        Args:
            episode: T tasks.
            random: source of all randomness, on the CPU.
        """
        return episode

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Outputs of the queries in training, [T, Q, O], and l_meta, a scalar.

        By default they are computed by `predict` and `loss`. Algorithms that do not train as they
        predict, or have further terms in their loss, override this.

        Args:
            network: backbone and head.
            episode: T tasks of training.
            batch: the mini-batch of the same step; without samples unless `needs_batch`, or another
                flow has a loss of it.
        """
        outputs = self.predict(network, episode)
        return outputs, self.loss(outputs, episode.query_y)


class WrappedMetaTraining(MetaTraining):
    """Trains another algorithm in a different way, and predicts with it.

    Attributes:
        algorithm: the other algorithm, an option of each subclass.
    """

    algorithm: MetaTraining

    def __post_init__(self) -> None:
        if type(self.algorithm).outputs_and_loss is not MetaTraining.outputs_and_loss:
            raise InputError(
                f"metatraining.algorithm is {type(self.algorithm).__name__}, which does not train "
                f"as it predicts: {type(self).__name__} takes algorithms that do, as ProtoNet, "
                "MatchingNet, RelationNet, GNN or MetaOptNet"
            )

    @property
    def needs_only_features(self) -> bool:
        """As in `algorithm`."""
        return self.algorithm.needs_only_features

    @property
    def fixed_ways(self) -> bool:
        """As in `algorithm`."""
        return self.algorithm.fixed_ways

    @property
    def limited_ways(self) -> bool:
        """As in `algorithm`."""
        return self.algorithm.limited_ways

    @property
    def task(self) -> str | None:
        """As in `algorithm`."""
        return self.algorithm.task

    @abstractmethod
    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Outputs of the queries in training, [T, Q, O], and l_meta, a scalar."""

    def head(self, features: int, outputs: int) -> nn.Module:
        """As in `algorithm`."""
        return self.algorithm.head(features, outputs)

    def head_for(self, backbone: nn.Module, features: int, outputs: int, classes: int) -> nn.Module:
        """As in `algorithm`."""
        return self.algorithm.head_for(backbone, features, outputs, classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """As in `algorithm`."""
        return self.algorithm.loss(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """As in `algorithm`."""
        return self.algorithm.predict(network, episode)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """As in `algorithm`."""
        return self.algorithm.fit(head, support, labels, ways)

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        """As in `algorithm`."""
        return self.algorithm.adapt(network, x, y)
