"""RFS: a good embedding by self-distilled generations (Tian et al. 2020 [76])."""

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode
from omnitraining.losses import cross_entropy
from omnitraining.network import Network
from omnitraining.pretraining.base import PreTraining
from omnitraining.pretraining.linear_heads import LinearHead, LogisticHead


@dataclass(frozen=True)
class RFS(PreTraining):
    """A classifier that also learns the answers of the generation before it.

    The first generation is a plain classifier. Each later one starts afresh and names the run of
    the one before it as ``teacher_run`` of its configuration; its frozen pre-flow is the teacher.
    At test, logistic regression on features of length 1.

    Args:
        temperature: of both distributions in the distillation.
        share: weight of the distillation; the cross-entropy has the rest. The authors take half.
        new_head: how H_new is fitted.
    """

    temperature: float = 4.0
    share: float = 0.5
    new_head: LinearHead = field(default_factory=LogisticHead)

    def head(self, features: int, outputs: int) -> nn.Module:
        return nn.Linear(features, outputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def loss_after(self, outputs: Tensor, targets: Tensor, previous: Tensor) -> Tensor:
        student, teacher = (
            F.log_softmax(logits / self.temperature, -1) for logits in (outputs, previous)
        )
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        distilled = self.temperature**2 * divergence
        return self.share * distilled + (1 - self.share) * self.loss(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        return self.new_head.predict(network.backbone, episode)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        return self.new_head.fit(support, labels, ways)
