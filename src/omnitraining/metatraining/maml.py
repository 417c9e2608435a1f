"""Model-agnostic meta-learning (eq. 19; Finn et al. 2017 [22])."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from omnitraining.adaptation import adapted_outputs
from omnitraining.batches import Episode
from omnitraining.losses import cross_entropy, squared_error
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network


@dataclass(frozen=True)
class MAML(MetaTraining):
    """Learns an initialisation from which a few gradient steps on the support set go far.

    All parameters of backbone and head adapt; in a flow of an Omni-Net these are its joint and
    its branch weights. Batch norm uses batch statistics, also at test.

    Args:
        steps: inner gradient steps.
        lr: inner learning rate; eq. 19 prints none. 0.02 for the paper's regression.
        second_order: differentiate through the inner gradients.
        task: the loss l of the inner and the outer loop.
    """

    steps: int = 1
    lr: float = 0.02
    second_order: bool = True
    task: Literal["classification", "regression"] = "classification"

    needs_only_features = False
    fixed_ways = True

    def head(self, features: int, outputs: int) -> nn.Module:
        layer = nn.Linear(features, outputs)
        if self.task == "classification":
            nn.init.zeros_(layer.bias)
        return layer

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        measure = cross_entropy if self.task == "classification" else squared_error
        return measure(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        outputs = adapted_outputs(
            network, episode, self.loss, (self.steps,), self.lr, self.second_order
        )
        return outputs[0]
