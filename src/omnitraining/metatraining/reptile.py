"""Reptile: move the weights towards those that tasks adapt them to (Nichol et al. 2018).

A. Nichol, J. Achiam, J. Schulman: "On First-Order Meta-Learning Algorithms", 2018,
https://arxiv.org/abs/1803.02999
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from omnitraining.adaptation.inner_loop import adaptations
from omnitraining.batches import Episode, MiniBatch
from omnitraining.limits import check_least, check_positive
from omnitraining.metatraining.base import MetaTraining
from omnitraining.metatraining.maml import MAML
from omnitraining.network import Network


@dataclass(frozen=True)
class Reptile(MetaTraining):
    """Learns initial weights as `MAML` does, without a gradient of the adapted network.

    The gradient of the outer loop is the way from the adapted weights back to the initial ones,
    (theta - theta') / lr, the mean over the tasks of a step. It is that of half the squared
    distance, which is the loss here, with theta' held constant:

    ||theta - theta'||^2 / (2 lr)

    So any optimizer takes the outer step. Queries are not used in training, and cost one forward
    pass.

    The authors draw mini-batches of the support set for the inner steps, and take those with Adam
    without momentum; here every step is plain gradient descent on the whole support set, as in
    `MAML`. Batch norm uses batch statistics, also at test.

    Args:
        steps: inner gradient steps. With one, the outer gradient is that of joint training on all
            tasks.
        lr: inner learning rate.
        task: the kind of problem, which decides the head and the loss.

    Raises:
        InputError: ``steps`` is below 0 or ``lr`` is not above 0.

    Example:
        >>> import torch
        >>> from omnitraining import Episode, MiniBatch, Reptile
        >>> from omnitraining.network import Network
        >>> algorithm = Reptile(steps=3, lr=0.1)
        >>> network = Network(torch.nn.Identity(), algorithm.head(features=2, outputs=2))
        >>> x, labels = torch.eye(2)[None], torch.tensor([[0, 1]])
        >>> episode, batch = Episode(x, labels, x, labels, ways=2), MiniBatch(x[0], labels[0])
        >>> outputs, loss = algorithm.outputs_and_loss(network, episode, batch)
        >>> outputs.shape, loss.item() > 0
        (torch.Size([1, 2, 2]), True)
    """

    steps: int = 5
    lr: float = 0.01
    task: Literal["classification", "regression"] = "classification"

    needs_only_features = False
    fixed_ways = True

    def __post_init__(self) -> None:
        check_least("metatraining", self, 0, "steps")
        check_positive("metatraining", self, "lr")

    @property
    def _first_order(self) -> MAML:
        """MAML whose inner loop is this one."""
        return MAML(self.steps, self.lr, second_order=False, task=self.task)

    def head(self, features: int, outputs: int) -> nn.Module:
        """A linear layer, whose bias starts at 0 in classification."""
        return self._first_order.head(features, outputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """L of the inner loop, the mean over samples; a scalar.

        Args:
            outputs: logits [..., N] or values [..., D].
            targets: class indices [...] or values [..., D].
        """
        return self._first_order.loss(outputs, targets)

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Query outputs [T, Q, O] of the adapted networks, and half the squared distance."""
        outputs, distances = [], []
        steps = (self.steps,)
        for part, adapted in adaptations(network, episode, self.loss, steps, self.lr, False):
            outputs.append(part[0])
            ways = [w - adapted[name].detach() for name, w in network.named_parameters()]
            distances += [way.square().sum() for way in ways]
        total = torch.stack(distances).sum() / len(episode.support_x)
        return torch.cat(outputs), total / (2 * self.lr)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Query outputs [T, Q, O] after the inner steps on each task's support set."""
        return self._first_order.predict(network, episode)

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        """A copy of the network after the inner steps on one support set, as in `predict`."""
        return self._first_order.adapt(network, x, y)
