"""L2 regression: a linear head that predicts values (eq. 17)."""

from dataclasses import dataclass

from torch import Tensor, nn

from omnitraining.adaptation.inner_loop import adapt_and_predict, adapted_copy
from omnitraining.batches import Episode
from omnitraining.limits import check_least, check_positive
from omnitraining.losses import squared_error
from omnitraining.network import Network
from omnitraining.pretraining.base import PreTraining


@dataclass(frozen=True)
class L2Regression(PreTraining):
    """Squared error over samples of all tasks; the whole network is fine-tuned at test (6.2).

    Args:
        steps: gradient steps on a new task's support set.
        lr: their learning rate.

    Raises:
        InputError: ``steps`` is below 0 or ``lr`` is not above 0.

    Example:
        >>> import torch
        >>> from omnitraining import L2Regression
        >>> L2Regression().loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]]))
        tensor(2.)
    """

    steps: int = 1
    lr: float = 0.02

    needs_only_features = False

    def __post_init__(self) -> None:
        check_least("pretraining", self, 0, "steps")
        check_positive("pretraining", self, "lr")

    def head(self, features: int, outputs: int) -> nn.Module:
        """A linear layer [B, features] -> [B, outputs]."""
        return nn.Linear(features, outputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of outputs [..., D] against values [..., D] (eq. 17)."""
        return squared_error(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Outputs [T, Q, D] of the queries, the network fine-tuned to each task."""
        return adapt_and_predict(network, episode, self.loss, (self.steps,), self.lr)[0]

    def adapt(self, network: Network, x: Tensor, y: Tensor) -> nn.Module:
        """A copy of a network fine-tuned on inputs [S, ...] and values [S, D] of one task."""
        return adapted_copy(network, x, y, self.loss, self.steps, self.lr)
