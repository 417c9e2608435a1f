"""TapNet: prototypes in a projection that is computed for each task (Yoon et al. 2019 [93]).

[93] S. W. Yoon, J. Seo, J. Moon: "TapNet: Neural Network Augmented with Task-Adaptive Projection
for Few-Shot Learning", ICML 2019, https://arxiv.org/abs/1905.06549 and its code
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode, MiniBatch, class_means
from omnitraining.errors import InputError
from omnitraining.limits import check_positive
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.metatraining.protonet import Prototypes
from omnitraining.network import Network
from omnitraining.precision import at_least_float32, in_full_precision


class References(nn.Module):
    """The reference vectors Phi of [93], one for each class of a training task.

    Args:
        features: D.
        outputs: number of vectors R.
    """

    def __init__(self, features: int, outputs: int) -> None:
        """Initialize the vectors [R, D] as the weights of `torch.nn.Linear`."""
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(outputs, features))
        nn.init.kaiming_uniform_(self.vectors, a=5**0.5)

    @torch.no_grad()
    def match(self, prototypes: Tensor) -> Tensor:
        """Indices [T, N] of a different reference for each class of new tasks, N up to R.

        The nearest pair of a prototype and a reference is matched first, then the nearest pair of
        the others. The authors' code goes through the classes in order and takes the nearest free
        reference, which depends on that order.

        Args:
            prototypes: [T, N, D].
        """
        vectors = at_least_float32(self.vectors).expand(len(prototypes), -1, -1)
        distances = torch.cdist(at_least_float32(prototypes), vectors)  # [T, N, R]
        tasks, ways, _ = distances.shape
        chosen = torch.zeros(tasks, ways, dtype=torch.long, device=prototypes.device)
        rows = torch.arange(tasks, device=prototypes.device)
        for _ in range(ways):
            nearest = distances.flatten(1).argmin(1)
            one, other = nearest // distances.shape[2], nearest % distances.shape[2]
            chosen[rows, one] = other
            distances[rows, one] = torch.inf
            distances[rows, :, other] = torch.inf
        return chosen


class Projection(nn.Module):
    """The orthogonal projection off the span of N vectors of each task.

    Args:
        basis: orthonormal, of the span [T, D, N].
    """

    def __init__(self, basis: Tensor) -> None:
        """Register the basis as a buffer."""
        super().__init__()
        self.register_buffer("basis", basis)
        self.basis: Tensor

    @in_full_precision
    def forward(self, x: Tensor) -> Tensor:
        """Projected features [T, M, D] of features [T, M, D]."""
        return x - (x @ self.basis) @ self.basis.mT


@dataclass(frozen=True)
class TapNet(MetaTraining):
    """Classifies a query by its distance to learned references, in a projection of each task.

    The projection makes prototypes and references agree: its null space holds the difference of
    each unit prototype c_n / |c_n| and the unit of phi~_n = phi_n - mean of the other references
    (section 3.2 of [93]); logits are ``-|M (f(x) - phi_n)|^2`` (section 3.1), where M is the
    projection. M takes no gradient, as in the authors' code, which computes it by a singular value
    decomposition.

    In training, reference n belongs to class n of the episode. A new task may have fewer classes,
    each of which gets the nearest reference, as in `References.match`.

    Args:
        scale: factor of the logits; 1 in [93].

    Raises:
        InputError: ``scale`` is not above 0.

    Example:
        >>> import torch
        >>> from omnitraining import TapNet
        >>> algorithm = TapNet()
        >>> support, labels = torch.rand(1, 4, 8), torch.tensor([[0, 0, 1, 1]])
        >>> classifier = algorithm.fit(algorithm.head(8, 2), support, labels, ways=2)
        >>> classifier(torch.rand(1, 3, 8)).shape  # logits [T, Q, N]
        torch.Size([1, 3, 2])
    """

    scale: float = 1.0

    limited_ways = True

    def __post_init__(self) -> None:
        check_positive("metatraining", self, "scale")

    def head(self, features: int, outputs: int) -> nn.Module:
        """`References` for tasks of up to as many classes as there are outputs.

        Raises:
            InputError: features are not more than outputs, so that the projection would be zero.
        """
        if features <= outputs:
            raise InputError(
                f"TapNet projects onto as many dimensions as there are features, {features}, more "
                f"than ways, {outputs}: take a backbone with more features"
            )
        return References(features, outputs)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [T, Q, N] against class indices [T, Q]."""
        return cross_entropy(outputs, targets)

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Logits [T, Q, N] and their loss, where class n has reference n."""
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        vectors = cast(References, network.head).vectors.expand(len(episode.support_x), -1, -1)
        outputs = self._projected(vectors, embedded.prototypes())(embedded.query_x)
        return outputs, self.loss(outputs, episode.query_y)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Logits [T, Q, N], where each class has the nearest reference."""
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        head = self.fit(network.head, embedded.support_x, episode.support_y, episode.ways)
        logits: Tensor = head(embedded.query_x)
        return logits

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """The projection, followed by distances to the projected references.

        Raises:
            InputError: there are more ways than references.
        """
        references = cast(References, head)
        if ways > (most := len(references.vectors)):
            raise InputError(f"this TapNet was made for up to {most} ways, and the task has {ways}")
        prototypes = class_means(support, labels, ways)
        return self._projected(references.vectors[references.match(prototypes)], prototypes)

    def _projected(self, references: Tensor, prototypes: Tensor) -> nn.Module:
        """The head of references [T, N, D] and prototypes [T, N, D]."""
        with torch.no_grad(), torch.autocast(references.device.type, enabled=False):
            phi, prototypes = at_least_float32(references), at_least_float32(prototypes)
            # In the direction of phi_n less the mean of the others, N / (N - 1) times shorter
            modified = F.normalize(phi - phi.mean(1, keepdim=True), dim=-1)
            errors = modified - F.normalize(prototypes, dim=-1)
            projection = Projection(torch.linalg.qr(errors.mT)[0])
        targets = projection(at_least_float32(references))
        return nn.Sequential(projection, Prototypes(targets, "euclidean", self.scale))
