"""Multi-task learning as a substitute for meta-learning (Wang et al. 2021 [82]).

[82] H. Wang, H. Zhao, B. Li: "Bridging Multi-Task Learning and Meta-Learning: Towards Efficient
Training and Effective Adaptation", ICML 2021, https://arxiv.org/abs/2106.09017 and its code
"""

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from omnitraining.batches import Episode, MiniBatch
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.precision import at_least_float32
from omnitraining.pretraining.linear_heads import LinearHead, LogisticHead


def _as_published() -> LogisticHead:
    """Scikit-learn's logistic regression with C = 3, on features of length 1."""
    return LogisticHead(penalty=1 / 3, reduction="sum")


@dataclass(frozen=True)
class MultiTask(MetaTraining):
    """Every training task has its own linear head on shared features, without adaptation.

    The heads of tasks share the weights of the classes that they have in common: there is one
    vector for each class of training, and a task compares the vectors of its classes. A task is not
    split: the loss is the mean over its support and query sets (the objective of multi-task
    learning in [82], which is one-level where MAML's is two-level). So a step costs no inner loop,
    and `protocol.tasks` of them can be trained at once.

    Args:
        new_head: how the head of a new task is fitted on frozen features.

    Example:
        >>> import torch
        >>> from omnitraining import MultiTask
        >>> algorithm = MultiTask()
        >>> support, labels = torch.eye(2)[None], torch.tensor([[0, 1]])
        >>> classifier = algorithm.fit(torch.nn.Identity(), support, labels, ways=2)
        >>> classifier(support).argmax(-1)  # of queries [T, Q, D]
        tensor([[0, 1]])
    """

    new_head: LinearHead = field(default_factory=_as_published)

    def head(self, features: int, outputs: int) -> nn.Module:
        """Weights [outputs, features] of ``outputs`` classes, without a bias."""
        return nn.Linear(features, outputs, bias=False)

    def head_for(self, backbone: nn.Module, features: int, outputs: int, classes: int) -> nn.Module:
        """Weights of all classes of training, initialized as the weights of one task would be."""
        head = nn.Linear(features, classes, bias=False)
        with torch.no_grad():  # as in the authors' code
            head.weight.mul_((classes / outputs) ** 0.5)
        return head

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [T, M, N] against class indices [T, M]."""
        return cross_entropy(outputs, targets)

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Logits [T, Q, N] of the queries by the weights of their classes, and l_meta.

        Raises:
            InputError: the episode does not state its training classes.
        """
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        ways = torch.arange(episode.ways, device=episode.query_y.device)
        classes = episode.training_classes(ways.expand(len(episode.query_y), -1))  # [T, N]
        weight = cast(nn.Linear, network.head).weight[classes]
        x = torch.cat([embedded.support_x, embedded.query_x], 1)
        logits = x @ weight.mT
        labels = torch.cat([episode.support_y, episode.query_y], 1)
        return logits[:, episode.support_y.shape[1] :], self.loss(logits, labels)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Logits [T, Q, N] of the queries, by new heads on frozen features."""
        return self.new_head.predict(network.backbone, episode)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """New linear heads; the heads of training are not used."""
        return self.new_head.fit(at_least_float32(support), labels, ways)
