"""RFS: a good embedding by self-distilled generations (Tian et al. 2020 [76]).

[76] Y. Tian, Y. Wang, D. Krishnan, J. B. Tenenbaum, P. Isola: "Rethinking Few-Shot Image
Classification: a Good Embedding Is All You Need?", ECCV 2020, https://arxiv.org/abs/2003.11539
"""

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.limits import check_part, check_positive
from omnitraining.pretraining.base import LinearPreTraining
from omnitraining.pretraining.linear_heads import LinearHead, LogisticHead


@dataclass(frozen=True)
class RFS(LinearPreTraining):
    """A classifier that is also distilled from the generation before it (born-again networks).

    The first generation is a plain classifier. Each later generation starts from new weights and
    names the run of the generation before it as ``teacher_run`` of its configuration; the frozen
    pre-flow of that run is the teacher.
    At test, logistic regression on features of length 1.

    Args:
        temperature: of both distributions in the distillation.
        kd_weight: weight of the distillation, in [0, 1]; the cross-entropy has the rest. The
            authors take half.
        new_head: how H_new is fitted.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from omnitraining import RFS
        >>> logits, labels = torch.rand(3, 5), torch.tensor([0, 2, 4])
        >>> loss = RFS(kd_weight=1.0).distillation_loss(logits, labels, teacher_logits=logits)
        >>> round(loss.item(), 6)
        0.0
    """

    temperature: float = 4.0
    kd_weight: float = 0.5
    new_head: LinearHead = field(default_factory=LogisticHead)

    def __post_init__(self) -> None:
        check_positive("pretraining", self, "temperature")
        check_part("pretraining", self, "kd_weight")

    def head(self, features: int, outputs: int) -> nn.Module:
        """A linear layer [B, features] -> [B, outputs]."""
        return nn.Linear(features, outputs)

    def distillation_loss(self, outputs: Tensor, targets: Tensor, teacher_logits: Tensor) -> Tensor:
        """Distillation and cross-entropy, the mean over samples; a scalar.

        l_pre = w t^2 KL(softmax(teacher / t) || softmax(student / t)) + (1 - w) cross-entropy,
        with the weight w = ``kd_weight`` and the temperature t.

        Args:
            outputs: logits of this generation [B, N].
            targets: class indices [B].
            teacher_logits: logits [B, N] of the generation before, for the same inputs.
        """
        student, teacher = (
            F.log_softmax(logits / self.temperature, -1) for logits in (outputs, teacher_logits)
        )
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        distilled = self.temperature**2 * divergence
        return self.kd_weight * distilled + (1 - self.kd_weight) * self.loss(outputs, targets)
