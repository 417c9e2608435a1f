"""REINFORCE: a policy that learns all tasks at once by their policy gradient (eq. 18)."""

from dataclasses import dataclass

from torch import Tensor, nn

from omnitraining.adaptation.inner_loop import adapted_outputs
from omnitraining.batches import Episode
from omnitraining.network import Network
from omnitraining.policies.gaussian import GaussianHead, policy_gradient, surrogate
from omnitraining.pretraining.base import PreTraining


@dataclass(frozen=True)
class REINFORCE(PreTraining):
    """Ascends the expected return over the mixture of tasks; fine-tuned at test (paper 6.3).

    Args:
        lr: learning rate of the gradient steps on a new task.
    """

    lr: float = 0.1

    needs_only_features = False

    def head(self, features: int, outputs: int) -> nn.Module:
        return GaussianHead(features, outputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return surrogate(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        return adapted_outputs(network, episode, policy_gradient, (1,), self.lr)[0]
