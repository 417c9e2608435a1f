"""REINFORCE: one policy for the mixture of all tasks, by the policy gradient (eq. 18).

R. J. Williams: "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning", Machine Learning 1992, https://doi.org/10.1007/BF00992696
"""

from dataclasses import dataclass

from torch import Tensor, nn

from omnitraining.adaptation.inner_loop import adapt_and_predict
from omnitraining.batches import Episode
from omnitraining.limits import check_inner_part, check_positive
from omnitraining.network import Network
from omnitraining.policies.gaussian import (
    GaussianHead,
    PolicyTargets,
    outer_loss,
    policy_gradient,
)
from omnitraining.pretraining.base import PreTraining


@dataclass(frozen=True)
class REINFORCE(PreTraining):
    """Maximizes the expected return over all tasks; fine-tuned on a new one (paper 6.3).

    The loss of training is the surrogate, which has the same gradient at the policy that sampled
    the trajectories and which TRPO can evaluate elsewhere.

    Args:
        lr: learning rate of the gradient steps on a new task.
        clip_ratio: epsilon of PPO's clipped surrogate in training, for several updates on the same
            trajectories (``training.updates_per_step``); the plain surrogate if None. With one
            update per step there is no difference, as all ratios are 1.

    Raises:
        InputError: ``lr`` is not above 0, or ``clip_ratio`` not in (0, 1).

    Example:
        >>> import torch
        >>> from omnitraining import REINFORCE
        >>> policy = REINFORCE().head(features=64, outputs=2)
        >>> policy(torch.rand(5, 64)).shape  # mean and log standard deviation of 2 numbers
        torch.Size([5, 4])
    """

    lr: float = 0.1
    clip_ratio: float | None = None

    needs_only_features = False

    def __post_init__(self) -> None:
        check_positive("pretraining", self, "lr")
        check_inner_part("pretraining", self, "clip_ratio")

    def head(self, features: int, outputs: int) -> nn.Module:
        """A Gaussian policy over actions [outputs]."""
        return GaussianHead(features, outputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The surrogate of outputs [..., 2 A] and packed `PolicyTargets` [..., A + 2]."""
        return outer_loss(outputs, PolicyTargets.unpack(targets), self.clip_ratio)

    def inner_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of a gradient step on a new task; shapes as in `loss`."""
        return policy_gradient(outputs, PolicyTargets.unpack(targets))

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Outputs [T, Q, 2 A] after one gradient step on each task's support set."""
        return adapt_and_predict(network, episode, self.inner_loss, (1,), self.lr)[0]
