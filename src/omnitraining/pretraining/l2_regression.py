"""L2 regression: a linear head that predicts values (eq. 17)."""

from dataclasses import dataclass

from torch import Tensor, nn

from omnitraining.adaptation.inner_loop import adapted, adapted_outputs
from omnitraining.batches import Episode
from omnitraining.losses import squared_error
from omnitraining.network import Network
from omnitraining.pretraining.base import PreTraining


@dataclass(frozen=True)
class L2Regression(PreTraining):
    """Squared error over samples of all tasks; at test the whole network is fine-tuned (6.2).

    Args:
        steps: gradient steps on a new task's support set.
        lr: their learning rate.
    """

    steps: int = 1
    lr: float = 0.02

    needs_only_features = False

    def head(self, features: int, outputs: int) -> nn.Module:
        return nn.Linear(features, outputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return squared_error(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        return adapted_outputs(network, episode, self.loss, (self.steps,), self.lr)[0]

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        return adapted(network, x, y, self.loss, self.steps, self.lr)
