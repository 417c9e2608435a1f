"""TADAM: prototypes in a metric that depends on the task (Oreshkin et al. 2018 [55]).

[55] B. N. Oreshkin, P. Rodriguez, A. Lacoste: "TADAM: Task dependent adaptive metric for improved
few-shot learning", NeurIPS 2018, https://arxiv.org/abs/1805.10123 and its code
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.adaptation.modulation import (
    Modulation,
    Modulations,
    modulated,
    modulated_copy,
    modulated_norms,
)
from omnitraining.batches import Episode, MiniBatch, channels_last, class_means
from omnitraining.errors import InputError
from omnitraining.limits import check_least, check_positive, check_proper_part
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.metatraining.protonet import Metric, ProtoNet
from omnitraining.network import Network

LAYERS = 3  # of each predictor
DECAYS = 20  # of the auxiliary weight, in the course of training


class Predictor(nn.Module):
    """A residual network of linear layers from a task embedding to a value per channel.

    Args:
        inputs: size of the embedding.
        channels: C.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        """Make the layers, initialized as in the authors' code."""
        super().__init__()
        sizes = [inputs, *[channels] * LAYERS]
        layers = [nn.Linear(*pair) for pair in pairwise(sizes)]
        for layer in layers:
            nn.init.normal_(layer.weight, std=(0.2 / channels) ** 0.5)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Values [T, C] of task embeddings [T, D]."""
        for number, layer in enumerate(self.layers):
            x = layer(x) + x if number else layer(x)
            x = F.silu(x) if number < LAYERS - 1 else x
        return x


class TaskEmbedding(nn.Module):
    """The task embedding network, the scale of the metric, and the auxiliary classifier of [55].

    The auxiliary weight depends on the training step, which `Scheduled` sets.

    Args:
        norms: channels of each norm to modulate, by path.
        features: D of the backbone.
        classes: of training.
        scale: of the metric at the start.
        auxiliary: weight of the auxiliary classification at the start.

    Attributes:
        weight: of the auxiliary classification at this step.
    """

    def __init__(
        self, norms: Mapping[str, int], features: int, classes: int, scale: float, auxiliary: float
    ) -> None:
        """Make the networks; post-multipliers start at 0, so that tasks do not differ at first."""
        super().__init__()
        self.paths, self.auxiliary, self.weight = tuple(norms), auxiliary, auxiliary
        self.scales = nn.ModuleList(Predictor(features, size) for size in norms.values())
        self.shifts = nn.ModuleList(Predictor(features, size) for size in norms.values())
        self.multipliers = nn.Parameter(torch.zeros(2, len(norms)))  # gamma_0 and beta_0
        self.factor = nn.Parameter(torch.tensor(scale))
        self.classifier = nn.Linear(features, classes)

    def at_step(self, step: int, steps: int) -> None:
        """Decay the auxiliary weight: times 0.9 in each twentieth of training (section 2.4)."""
        self.weight = self.auxiliary * 0.9 ** (DECAYS * step // steps)

    def forward(self, task: Tensor) -> Modulations:
        """Modulations [T, C] of every norm for task embeddings [T, D] (section 2.2).

        gamma = gamma_0 h(c) + 1 and beta = beta_0 g(c)
        """
        parts = zip(self.paths, self.scales, self.shifts, *self.multipliers, strict=True)
        return {
            path: Modulation(1 + gamma * scale(task), beta * shift(task))
            for path, scale, shift, gamma, beta in parts
        }

    def penalty(self) -> Tensor:
        """Half the sum of squares of the post-multipliers, a scalar."""
        return self.multipliers.square().sum() / 2


@dataclass(frozen=True)
class TADAM(MetaTraining):
    """ProtoNet whose features depend on the task, with a learned scale of the metric.

    The support set passes the backbone twice: the mean of its prototypes is the embedding of the
    task, from which a network predicts a scale and a shift after every batch norm except in
    shortcuts. With these, support and query set are embedded, and logits are the logits of
    `ProtoNet` times alpha, which is learned (section 2.1 of [55]).

    A linear classifier of all training classes is trained jointly, on the mini-batch of each step
    (section 2.4). The authors draw at random whether a step trains this auxiliary task, with a
    probability that decays from 0.9; here every step has the mean of the two losses weighted by
    that probability.

    Args:
        metric: as in `ProtoNet`; [55] has Euclidean distances, without a square.
        scale: alpha at the start.
        auxiliary: weight of the auxiliary classification at the start, from 0 to below 1.
        multiplier_decay: L2 penalty of the post-multipliers, which limit the effect of the task.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from omnitraining import TADAM, Conv4, Episode
        >>> from omnitraining.network import Network
        >>> algorithm, backbone = TADAM(), Conv4(width=4)
        >>> head = algorithm.head_for(backbone, features=16, outputs=2, classes=10)
        >>> labels, images = torch.tensor([[0, 1]]), torch.rand(1, 2, 3, 32, 32)
        >>> episode = Episode(images, labels, images, labels, ways=2)
        >>> algorithm.predict(Network(backbone, head), episode).shape
        torch.Size([1, 2, 2])
    """

    metric: Metric = "distance"
    scale: float = 1.0
    auxiliary: float = 0.9
    multiplier_decay: float = 0.01

    needs_only_features = False

    def __post_init__(self) -> None:
        check_positive("metatraining", self, "scale")
        check_proper_part("metatraining", self, "auxiliary")
        check_least("metatraining", self, 0, "multiplier_decay")

    def head(self, features: int, outputs: int) -> nn.Module:
        """There is none without a backbone: see `head_for`.

        Raises:
            InputError: always.
        """
        raise InputError("TADAM's head depends on the norms of a backbone: call head_for")

    def head_for(self, backbone: nn.Module, features: int, outputs: int, classes: int) -> nn.Module:
        """`TaskEmbedding` for the batch norms of a backbone.

        Raises:
            InputError: it has none.
        """
        norms = modulated_norms(backbone)
        if not norms:
            raise InputError(
                f"TADAM modulates what follows batch norms, and backbone "
                f"{type(backbone).__name__} has none"
            )
        return TaskEmbedding(norms, features, classes, self.scale, self.auxiliary)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [T, Q, N] against class indices [T, Q]."""
        return cross_entropy(outputs, targets)

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Logits [T, Q, N]; their loss and that of the mini-batch, and the penalty."""
        head, outputs = cast(TaskEmbedding, network.head), self.predict(network, episode)
        loss = (1 - head.weight) * self.loss(outputs, episode.query_y)
        among_all = cross_entropy(head.classifier(network.backbone(batch.x)), batch.y)
        penalty = self.multiplier_decay * head.penalty()
        return outputs, loss + head.weight * among_all + penalty

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Logits [T, Q, N]."""
        modulations = self._modulations(network, episode.support_x, episode.support_y, episode.ways)
        features = modulated(network.backbone, episode.inputs(), modulations)
        embedded, proto = episode.with_inputs(features), ProtoNet(self.metric, 1.0)
        head = proto.fit(network.head, embedded.support_x, episode.support_y, episode.ways)
        logits: Tensor = head(embedded.query_x)
        return cast(TaskEmbedding, network.head).factor * logits

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        """The backbone with the modulations of a task in its norms, and its prototypes.

        Args:
            network: backbone and head of training.
            x: support inputs [S, ...].
            y: class indices [S].
        """
        head, ways = cast(TaskEmbedding, network.head), int(y.max()) + 1
        modulations = self._modulations(network, x[None], y[None], ways)
        backbone = modulated_copy(network.backbone, modulations)
        proto = ProtoNet(self.metric, head.factor.item())
        return Network(backbone, proto.fit(head, backbone(x)[None], y[None], ways))

    def _modulations(
        self, network: Network, support: Tensor, labels: Tensor, ways: int
    ) -> Modulations:
        """The modulations of T tasks from support inputs [T, S, ...] with labels [T, S]."""
        features = network.backbone(channels_last(support.flatten(0, 1)))
        features = features.unflatten(0, support.shape[:2])
        task = class_means(features, labels, ways).mean(1)
        modulations: Modulations = network.head(task)
        return modulations
