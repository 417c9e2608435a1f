"""Model-agnostic meta-learning (eq. 19; Finn et al. 2017 [22])."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from omnitraining.adaptation.inner_loop import adapted, adapted_outputs
from omnitraining.batches import Episode
from omnitraining.losses import cross_entropy, squared_error
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.policies.gaussian import GaussianHead, policy_gradient, surrogate


@dataclass(frozen=True)
class MAML(MetaTraining):
    """Learns an initialization from which a few gradient steps on the support set go far.

    All parameters of backbone and head adapt; in a flow of an Omni-Net these are its joint and
    its branch weights. Batch norm uses batch statistics, also at test.

    Args:
        steps: inner gradient steps.
        lr: inner learning rate; eq. 19 prints none. 0.02 for the paper's regression.
        second_order: differentiate through the inner gradients.
        task: the kind of problem, which decides the head and the loss l. In reinforcement learning
            the inner loop follows the policy gradient (eq. 18) and the outer one the surrogate
            that has the same gradient.
    """

    steps: int = 1
    lr: float = 0.02
    second_order: bool = True
    task: Literal["classification", "regression", "reinforcement"] = "classification"

    needs_only_features = False
    fixed_ways = True

    def head(self, features: int, outputs: int) -> nn.Module:
        if self.task == "reinforcement":
            return GaussianHead(features, outputs)
        layer = nn.Linear(features, outputs)
        if self.task == "classification":
            nn.init.zeros_(layer.bias)
        return layer

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        measures = {
            "classification": cross_entropy,
            "regression": squared_error,
            "reinforcement": surrogate,
        }
        return measures[self.task](outputs, targets)

    def inner_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """L of the inner loop, the mean over the support set of one task."""
        measure = policy_gradient if self.task == "reinforcement" else self.loss
        return measure(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        outputs = adapted_outputs(
            network, episode, self.inner_loss, (self.steps,), self.lr, self.second_order
        )
        return outputs[0]

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        return adapted(network, x, y, self.loss, self.steps, self.lr)
