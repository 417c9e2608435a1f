"""Model-agnostic meta-learning (eq. 19).

Finn et al. 2017, "Model-agnostic meta-learning for fast adaptation of deep networks"
(https://arxiv.org/abs/1703.03400).
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from omnitraining.adaptation.inner_loop import adapt_and_predict, adapted_copy
from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.limits import check_inner_part, check_least, check_positive
from omnitraining.losses import cross_entropy, squared_error
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.policies.gaussian import (
    GaussianHead,
    PolicyTargets,
    outer_loss,
    policy_gradient,
)


@dataclass(frozen=True)
class MAML(MetaTraining):
    """Learns initial weights from which a few gradient steps on the support set suffice.

    All parameters of backbone and head adapt; in a flow of an Omni-Net these are its joint and
    its branch weights. Batch norm uses batch statistics, also at test.

    Args:
        steps: inner gradient steps.
        lr: inner learning rate; eq. 19 prints none. 0.02 for the paper's regression.
        second_order: differentiate through the inner gradients.
        task: the kind of problem, which decides the head and the loss l. In reinforcement learning
            the inner loop uses the policy gradient (eq. 18) and the outer one the surrogate
            that has the same gradient.
        clip_ratio: epsilon of the clipped surrogate in the outer loop of reinforcement learning,
            for several updates on the same trajectories (``training.updates_per_step``); the plain
            surrogate if None. The ratio is that of adapted policies: in every update the inner
            step is taken anew from the initial weights, as in ProMP (Rothfuss et al. 2019,
            https://arxiv.org/abs/1810.06784, algorithm 1). Unlike there, the inner loss is MAML's,
            without importance weights, and there is no penalty on the KL divergence.

    Raises:
        InputError: ``steps`` is below 0, ``lr`` is not above 0, or ``clip_ratio`` is not in (0, 1)
            or given where ``task`` is not reinforcement.

    Example:
        >>> import torch
        >>> from omnitraining import MAML, Episode
        >>> from omnitraining.network import Network
        >>> maml = MAML(steps=2, lr=0.1, task="regression")
        >>> network = Network(torch.nn.Identity(), maml.head(features=3, outputs=1))
        >>> support, query = torch.zeros(4, 5, 3), torch.zeros(4, 8, 3)
        >>> episode = Episode(support, torch.zeros(4, 5, 1), query, torch.zeros(4, 8, 1))
        >>> maml.predict(network, episode).shape
        torch.Size([4, 8, 1])
    """

    steps: int = 1
    lr: float = 0.02
    second_order: bool = True
    task: Literal["classification", "regression", "reinforcement"] = "classification"
    clip_ratio: float | None = None

    needs_only_features = False
    fixed_ways = True

    def __post_init__(self) -> None:
        check_least("metatraining", self, 0, "steps")
        check_positive("metatraining", self, "lr")
        check_inner_part("metatraining", self, "clip_ratio")
        if self.clip_ratio is not None and self.task != "reinforcement":
            raise InputError(
                f"metatraining.clip_ratio is {self.clip_ratio}, but metatraining.task is "
                f"{self.task!r}: only 'reinforcement' has it"
            )

    def head(self, features: int, outputs: int) -> nn.Module:
        """A linear layer, of bias 0 in classification; a Gaussian policy in reinforcement."""
        if self.task == "reinforcement":
            return GaussianHead(features, outputs)
        layer = nn.Linear(features, outputs)
        if self.task == "classification":
            nn.init.zeros_(layer.bias)
        return layer

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """L of the outer loop, the mean over queries.

        Args:
            outputs: logits [..., N], values [..., D] or policy outputs [..., 2 A].
            targets: class indices [...], values [..., D] or packed `PolicyTargets` [..., A + 2].
        """
        if self.task == "classification":
            return cross_entropy(outputs, targets)
        if self.task == "regression":
            return squared_error(outputs, targets)
        return outer_loss(outputs, PolicyTargets.unpack(targets), self.clip_ratio)

    def inner_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """L of the inner loop, the mean over the support set of one task; shapes as in `loss`."""
        if self.task == "reinforcement":
            return policy_gradient(outputs, PolicyTargets.unpack(targets))
        return self.loss(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Query outputs [T, Q, O] after the inner steps on each task's support set."""
        outputs = adapt_and_predict(
            network, episode, self.inner_loss, (self.steps,), self.lr, self.second_order
        )
        return outputs[0]

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        """A copy of the network after the inner steps on one support set, as in `predict`."""
        return adapted_copy(network, x, y, self.loss, self.steps, self.lr)
