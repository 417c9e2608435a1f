"""Reptile: move the weights towards the weights adapted to tasks (Nichol et al. 2018).

A. Nichol, J. Achiam, J. Schulman: "On First-Order Meta-Learning Algorithms", 2018,
https://arxiv.org/abs/1803.02999
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from omnitraining.adaptation.inner_loop import adapt_and_predict, adaptations, adapted_copy
from omnitraining.batches import Episode, MiniBatch
from omnitraining.errors import InputError
from omnitraining.limits import check_least, check_positive
from omnitraining.metatraining.base import MetaTraining
from omnitraining.metatraining.maml import MAML
from omnitraining.network import Network


@dataclass(frozen=True)
class Reptile(MetaTraining):
    """Learns initial weights as `MAML` does, without a gradient of the adapted network.

    The gradient of the outer loop is the difference of the initial and the adapted weights,
    (theta - theta') / lr, the mean over the tasks of a step. It is the gradient of the loss

    ||theta - theta'||^2 / (2 lr)

    with theta' held constant. So any optimizer can take the outer step. Queries are not used in
    training, and cost one forward pass.

    By default every inner step is plain gradient descent on the whole support set, as in `MAML`.
    The authors take ``Reptile(steps=8, lr=0.001, optimizer="adam", batch=10, test_steps=50)`` for
    mini-ImageNet of five ways, with 15 shots in training, five tasks in each step, and an outer
    step of size 1 that falls to 0 (their Table 4): ``training.optimizer: sgd`` with the inner
    learning rate and ``schedule: linear``. Their Adam keeps its squares from task to task; here it
    begins anew. Batch norm uses batch statistics, also at test.

    Args:
        steps: inner gradient steps. With one, the outer gradient is that of joint training on all
            tasks.
        lr: inner learning rate.
        task: the kind of problem, which decides the head and the loss.
        optimizer: of the inner steps: ``"sgd"`` or ``"adam"``, both without momentum.
        batch: support samples of an inner step in training, drawn without replacement until all
            have been drawn, and then anew; the whole support set if 0, as always at test.
        test_steps: inner steps at test; ``steps`` if None.

    Raises:
        InputError: a number is out of range; or ``optimizer`` or ``test_steps`` is given and
            ``task`` is not classification.

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
    optimizer: Literal["sgd", "adam"] = "sgd"
    batch: int = 0
    test_steps: int | None = None

    needs_only_features = False
    fixed_ways = True

    def __post_init__(self) -> None:
        check_least("metatraining", self, 0, "steps", "batch", "test_steps")
        check_positive("metatraining", self, "lr")
        for name, default in (("optimizer", "sgd"), ("test_steps", None)):
            # In regression, predictions after every number of steps of plain descent are compared.
            if self.task != "classification" and getattr(self, name) != default:
                raise InputError(
                    f"metatraining.{name} is {getattr(self, name)!r}, but metatraining.task is "
                    f"{self.task!r}: only 'classification' has it"
                )

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

    def prepared(self, episode: Episode, random: torch.Generator) -> Episode:
        """The tasks with the samples of all inner steps as support sets, one step after another.

        Args:
            episode: T tasks.
            random: source of all randomness, on the CPU.
        """
        tasks, size = episode.support_y.shape[:2]
        if not self.steps or not 0 < self.batch < size:
            return episode
        needed = self.steps * self.batch
        passes = torch.rand(tasks, -(-needed // size), size, generator=random).argsort(-1)
        chosen = passes.flatten(1)[:, :needed].to(episode.support_y.device)
        rows = torch.arange(tasks, device=chosen.device).unsqueeze(1)
        return replace(
            episode,
            support_x=episode.support_x[rows, chosen],
            support_y=episode.support_y[rows, chosen],
        )

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Query outputs [T, Q, O] of the adapted networks, and half the squared distance."""
        outputs, distances = [], []
        parts = adaptations(
            network,
            episode,
            self.loss,
            (self.steps,),
            self.lr,
            second_order=False,
            adam=self._adam,
            batch=self.batch,
        )
        for part, adapted in parts:
            outputs.append(part[0])
            ways = [w - adapted[name].detach() for name, w in network.named_parameters()]
            distances += [way.square().sum() for way in ways]
        total = torch.stack(distances).sum() / len(episode.support_x)
        return torch.cat(outputs), total / (2 * self.lr)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Query outputs [T, Q, O] after the inner steps on each task's support set."""
        return adapt_and_predict(
            network,
            episode,
            self.loss,
            (self._steps_at_test,),
            self.lr,
            second_order=False,
            adam=self._adam,
        )[0]

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        """A copy of the network after the inner steps on one support set, as in `predict`."""
        steps = self._steps_at_test
        return adapted_copy(network, x, y, self.loss, steps, self.lr, self._adam)

    @property
    def _adam(self) -> bool:
        return self.optimizer == "adam"

    @property
    def _steps_at_test(self) -> int:
        return self.steps if self.test_steps is None else self.test_steps
