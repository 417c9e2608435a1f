"""PMM, or MixtFSL: a mixture of components for each training class (Afrasiyabi et al. 2020 [2]).

[2] A. Afrasiyabi, J.-F. Lalonde, C. Gagné: "Persistent Mixture Model Networks for Few-Shot Image
Classification", 2020, https://arxiv.org/abs/2011.11872 and the authors' code; published as
"Mixture-based Feature Space Learning for Few-shot Image Classification", ICCV 2021
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.errors import InputError
from omnitraining.limits import check_least, check_positive
from omnitraining.precision import at_least_float32, in_full_precision
from omnitraining.pretraining.base import LinearPreTraining
from omnitraining.pretraining.linear_heads import CosineHead, LinearHead

SMALLEST = 1e-6
"""Least squared sine, where the slope of its root is still finite."""


class Components(nn.Module):
    """Components of N classes, P of each.

    Args:
        features: D.
        outputs: number of classes N.
        components: P.
    """

    def __init__(self, features: int, outputs: int, components: int) -> None:
        """Initialize the components [N P, D]."""
        super().__init__()
        self.components = nn.Parameter(torch.empty(outputs * components, features))
        nn.init.xavier_uniform_(self.components)
        self.number = components

    @in_full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Cosines of features [B, D] and components [B, N P], then of features and class means.

        The mean over the unit components of a class takes no gradient, and has a length below 1.

        Returns:
            Both, [B, N P + N].
        """
        unit, components = F.normalize(x, dim=-1), F.normalize(self.components, dim=-1)
        means = components.detach().unflatten(0, (-1, self.number)).mean(1)
        return torch.cat([unit @ components.mT, unit @ means.mT], -1)


@dataclass(frozen=True)
class PMM(LinearPreTraining):
    """Learns several directions for each class, and features that are close to one of them.

    In the first stage a sample is assigned to the nearest component of its class. Its loss is the
    sum of two cross-entropies of cosines, divided by a temperature: among the means of all classes,
    which train only the features; and among the components to which a sample of the mini-batch is
    assigned. A margin is added to the angle to the true mean or component.

    The second stage follows the first (progressive following): with the run of the first stage as
    ``teacher_run``, samples are assigned in the frozen features and to the components of that run,
    and the loss is the cross-entropy among all components. It may start from that run's backbone
    (``start_from``). The authors replace the run that is followed whenever validation rises no
    more; here there is one run for each stage.

    Args:
        components: P, for each class.
        temperature: of the cosines.
        margin: in radians.
        cooling: factor of the temperature in the second stage.
        new_head: how H_new is fitted.

    Raises:
        InputError: an option is out of range.

    Example:
        >>> import torch
        >>> from omnitraining import PMM
        >>> algorithm = PMM(components=4)
        >>> outputs = algorithm.head(features=8, outputs=3)(torch.rand(5, 8))
        >>> outputs.shape
        torch.Size([5, 15])
        >>> algorithm.loss(outputs, torch.tensor([0, 1, 2, 0, 1])).item() > 0
        True
    """

    components: int = 15
    temperature: float = 0.025
    margin: float = 0.01
    cooling: float = 0.95
    new_head: LinearHead = field(default_factory=CosineHead)

    def __post_init__(self) -> None:
        check_least("pretraining", self, 1, "components")
        check_positive("pretraining", self, "temperature", "cooling")
        if not 0 <= self.margin < math.pi / 2:
            raise InputError(
                f"pretraining.margin is {self.margin}: it must be at least 0 and less than pi / 2"
            )

    def head(self, features: int, outputs: int) -> nn.Module:
        """`Components` of all classes."""
        return Components(features, outputs, self.components)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Both cross-entropies of the first stage, the mean over samples; a scalar.

        Args:
            outputs: of the head [..., N P + N].
            targets: class indices [...].
        """
        components, means = self._parts(outputs)
        targets = targets.flatten()
        assigned = self._assigned(components, targets)
        absent = torch.ones_like(components[0], dtype=torch.bool).index_fill(0, assigned, False)
        among_means = self._cross_entropy(means, targets, self.temperature)
        among_present = self._cross_entropy(components, assigned, self.temperature, absent)
        return among_means + among_present

    def distillation_loss(self, outputs: Tensor, targets: Tensor, teacher_logits: Tensor) -> Tensor:
        """Cross-entropy of the second stage, the mean over samples; a scalar.

        Args:
            outputs: of the head [B, N P + N].
            targets: class indices [B].
            teacher_logits: outputs [B, N P + N] of the first stage, for the same inputs.
        """
        assigned = self._assigned(self._parts(teacher_logits)[0], targets)
        components, _ = self._parts(outputs)
        return self._cross_entropy(components, assigned, self.temperature * self.cooling)

    def _parts(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of components [B, N P] and of class means [B, N]."""
        flat = at_least_float32(outputs).flatten(0, -2)
        classes = flat.shape[1] // (self.components + 1)
        components, means = flat.split([classes * self.components, classes], 1)
        return components, means

    def _assigned(self, components: Tensor, targets: Tensor) -> Tensor:
        """The nearest component of each sample among the components of its class [B]."""
        by_class = components.detach().unflatten(1, (-1, self.components))
        own = by_class[torch.arange(len(targets), device=targets.device), targets]
        assigned: Tensor = targets * self.components + own.argmax(1)
        return assigned

    def _cross_entropy(
        self, cosines: Tensor, labels: Tensor, temperature: float, absent: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy of cosines [B, M], with the margin added to the angle of the labels [B].

        The margin is left out where the angle is not below 90 degrees.
        """
        true = cosines.gather(1, labels.unsqueeze(1))
        sine = (1 - true.square()).clamp_min(SMALLEST).sqrt()
        farther = true * math.cos(self.margin) - sine * math.sin(self.margin)
        logits = cosines.scatter(1, labels.unsqueeze(1), torch.where(true > 0, farther, true))
        logits = logits / temperature
        if absent is not None:
            logits = logits.masked_fill(absent, -math.inf)
        return F.cross_entropy(logits, labels)
