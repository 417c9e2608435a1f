"""L2 regression: a linear head that predicts values (eq. 17)."""

from dataclasses import dataclass

from torch import Tensor, nn

from omnitraining.adaptation.inner_loop import adapt_and_predict, adapted_copy
from omnitraining.batches import Episode
from omnitraining.losses import squared_error
from omnitraining.network import Network
from omnitraining.pretraining.base import PreTraining


@dataclass(frozen=True)
class L2Regression(PreTraining):
    """Squared error over samples of all tasks; the whole network is fine-tuned at test (6.2).

    Args:
        steps: gradient steps on a new task's support set.
        lr: their learning rate.

    Example:
        >>> L2Regression().loss(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [3.0]]))
        tensor(0.5000)
    """

    steps: int = 1
    lr: float = 0.02

    needs_only_features = False

    def head(self, features: int, outputs: int) -> nn.Module:
        """A linear layer from features [B, features] to values [B, outputs]."""
        return nn.Linear(features, outputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of values [..., D]."""
        return squared_error(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Query values [T, Q, D] after gradient steps on each task's support set."""
        return adapt_and_predict(network, episode, self.loss, (self.steps,), self.lr)[0]

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        """A copy of the network after the same steps on one support set."""
        return adapted_copy(network, x, y, self.loss, self.steps, self.lr)
