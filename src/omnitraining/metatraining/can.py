"""Cross attention networks: maps that point out what class and query share (Hou et al. 2019 [33]).

[33] R. Hou, H. Chang, B. Ma, S. Shan, X. Chen: "Cross Attention Network for Few-shot
Classification", NeurIPS 2019, https://arxiv.org/abs/1910.07677 and its code

In shapes, C is the number of channels of a map and M of its positions.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode, MiniBatch, class_means
from omnitraining.errors import InputError
from omnitraining.limits import check_least, check_positive
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.precision import at_least_float32, in_full_precision

PAIRS_AT_ONCE = 2000  # pairs of query and class compared at a time at test


class Attended(NamedTuple):
    """Maps of pairs of query and class, weighted by their attention.

    Attributes:
        classes: mean of each class map, [T, Q, N, C].
        queries: weight of each position of each query map, [T, Q, N, M].
    """

    classes: Tensor
    queries: Tensor


class MetaFusion(nn.Module):
    """Attention of one map for another: the meta fusion layer of [33].

    For correlations R [M, M] of unit positions, w = W_2 relu(norm(W_1 GAP(R))) and A_i is the
    softmax of w^T r_i / M / temperature over the positions i. R itself is never computed: GAP(R) is
    the mean position of one map times the other map, and w^T r_i is position i of one map times
    the w-weighted sum of the other.

    Args:
        positions: M.
        reduction: of M by W_1.
        temperature: of the softmax.
    """

    def __init__(self, positions: int, reduction: int, temperature: float) -> None:
        """Make W_1, its norm and W_2, initialized as in the authors' code."""
        super().__init__()
        inner = max(1, positions // reduction)
        self.temperature = temperature
        self.reduce, self.norm = nn.Linear(positions, inner), nn.BatchNorm1d(inner)
        self.expand = nn.Linear(inner, positions)
        for layer in (self.reduce, self.expand):
            nn.init.normal_(layer.weight, std=(2 / layer.out_features) ** 0.5)

    def forward(self, of: Tensor, beside: Tensor) -> Tensor:
        """Attention 1 + A, [P, M], of unit maps [P, C, M] beside other unit maps [P, C, M]."""
        pooled = torch.einsum("pc,pcm->pm", of.mean(-1), beside)  # GAP(R)
        kernel = self.expand(F.relu(self.norm(self.reduce(pooled))))
        fused = torch.einsum("pcm,pm->pc", beside, kernel)
        scores = torch.einsum("pcm,pc->pm", of, fused) / of.shape[-1]
        return 1 + torch.softmax(scores / self.temperature, -1)


class CrossAttention(nn.Module):
    """Cross attention of class maps and query maps, and a classifier of all training classes.

    Args:
        channels: C of the maps.
        positions: M of the maps.
        classes: of training; without a classifier if 0.
        reduction: as in `MetaFusion`.
        temperature: as in `MetaFusion`.
    """

    def __init__(
        self, channels: int, positions: int, classes: int, reduction: int, temperature: float
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.channels = channels
        self.fusion = MetaFusion(positions, reduction, temperature)
        self.classifier = nn.Linear(channels, classes) if classes else None

    def maps(self, features: Tensor) -> Tensor:
        """Maps [T, K, C, M] of flattened maps [T, K, C * M]."""
        maps: Tensor = features.unflatten(-1, (self.channels, -1))
        return maps

    def forward(self, classes: Tensor, queries: Tensor) -> Attended:
        """The attended maps of every pair.

        Args:
            classes: class maps [T, N, C, M].
            queries: query maps [T, Q, C, M].
        """
        tasks, ways, _, positions = classes.shape
        shape = (tasks, queries.shape[1], ways, self.channels, positions)
        left = F.normalize(classes, dim=2).unsqueeze(1).expand(shape).flatten(0, 2)
        right = F.normalize(queries, dim=2).unsqueeze(2).expand(shape).flatten(0, 2)
        both = self.fusion(torch.cat([left, right]), torch.cat([right, left]))
        of_class, of_query = both.view(2, *shape[:3], positions)
        means = torch.einsum("tqnm,tncm->tqnc", of_class, classes) / positions
        return Attended(means, of_query)


def cosines(attended: Attended, queries: Tensor) -> Tensor:
    """Cosines [T, Q, N] of the means of attended query maps and class maps.

    Args:
        attended: as `CrossAttention` returns it.
        queries: query maps [T, Q, C, M].
    """
    means = torch.einsum("tqnm,tqcm->tqnc", attended.queries, queries)
    return F.cosine_similarity(means, attended.classes, dim=-1)


class ComparedMaps(nn.Module):
    """A head that compares query maps with class maps.

    Args:
        attention: the trained head.
        classes: flattened class maps [T, N, C * M].
        scale: factor of the cosines.
    """

    def __init__(self, attention: CrossAttention, classes: Tensor, scale: float) -> None:
        """Register the class maps as a buffer."""
        super().__init__()
        self.attention, self.scale = attention, scale
        self.register_buffer("classes", classes)
        self.classes: Tensor

    @in_full_precision
    def forward(self, query: Tensor) -> Tensor:
        """Logits [T, Q, N] of flattened query maps [T, Q, C * M]."""
        queries = self.attention.maps(query)
        attended = self.attention(self.attention.maps(self.classes), queries)
        return self.scale * cosines(attended, queries)


@dataclass(frozen=True)
class CAN(MetaTraining):
    """Compares a query with a class on maps that are weighted by attention for each other.

    The features of the backbone must be a flattened map: ``Conv4`` with ``pooled_blocks: 2``, a
    ``ResNet`` with ``pool: false``, or any other. Class maps are means of the support maps. At test
    logits are ``scale`` times cosines of the means of both attended maps. In training every
    position of a query is classified, by its cosines with the attended classes (L_1, nearest
    neighbor classification in [33]), and also among all classes of training, by a linear layer on
    the map that is attended for the true class (L_2, global classification): the loss is ``weight``
    L_1 + L_2, as in the authors' code.

    Args:
        channels: C of the backbone's last map.
        scale: of the cosines.
        temperature: of the attention.
        reduction: of the attention's kernel.
        weight: of the classification of classes in the task, L_1.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from omnitraining import CAN
        >>> algorithm = CAN(channels=4)
        >>> head = algorithm.head(features=4 * 5 * 5, outputs=2).eval()
        >>> support, labels = torch.rand(1, 4, 100), torch.tensor([[0, 0, 1, 1]])
        >>> classifier = algorithm.fit(head, support, labels, ways=2)
        >>> classifier(torch.rand(1, 3, 100)).shape  # logits [T, Q, N]
        torch.Size([1, 3, 2])
    """

    channels: int = 64
    scale: float = 7.0
    temperature: float = 0.025
    reduction: int = 6
    weight: float = 0.5

    def __post_init__(self) -> None:
        check_least("metatraining", self, 1, "channels", "reduction")
        check_positive("metatraining", self, "scale", "temperature")
        check_least("metatraining", self, 0, "weight")

    def head(self, features: int, outputs: int) -> nn.Module:
        """`CrossAttention` without a classifier; it can compare any number of classes.

        Raises:
            InputError: features are not a flattened map of two positions or more.
        """
        return self._head(features, 0)

    def head_for(self, backbone: nn.Module, features: int, outputs: int, classes: int) -> nn.Module:
        """`CrossAttention` with a classifier of all classes of training.

        Raises:
            InputError: features are not a flattened map of two positions or more.
        """
        return self._head(features, classes)

    def _head(self, features: int, classes: int) -> nn.Module:
        positions, rest = divmod(features, self.channels)
        if rest or positions < 2:
            raise InputError(
                f"metatraining.channels is {self.channels}, but the backbone gives {features} "
                "features: CAN needs a flattened map of 2 positions or more, as of Conv4 with "
                "pooled_blocks 2 or of ResNet with pool false"
            )
        return CrossAttention(self.channels, positions, classes, self.reduction, self.temperature)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [T, Q, N] against class indices [T, Q]."""
        return cross_entropy(outputs, targets)

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Logits [T, Q, N] as at test, and the loss of every position.

        Raises:
            InputError: the episode does not state its training classes.
        """
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        head, labels = cast(CrossAttention, network.head), episode.query_y
        with torch.autocast(embedded.query_x.device.type, enabled=False):
            queries, support = (
                at_least_float32(x) for x in (head.maps(embedded.query_x), embedded.support_x)
            )
            classes = class_means(support, episode.support_y, episode.ways)
            attended = head(head.maps(classes), queries)
            outputs = self.scale * cosines(attended, queries)
            # Attention scales each position, to which the cosine is invariant.
            near = torch.einsum(
                "tqcm,tqnc->tqmn",
                F.normalize(queries, dim=2),
                F.normalize(attended.classes, dim=-1),
            )
            loss = self.weight * _loss_of_positions(self.scale * near, labels)
            if head.classifier is not None:
                own = labels[..., None, None].expand(-1, -1, 1, queries.shape[-1])
                attention = attended.queries.gather(2, own)  # for the true class, [T, Q, 1, M]
                logits = head.classifier((queries * attention).mT)
                loss = loss + _loss_of_positions(logits, episode.training_classes(labels))
        return outputs, loss

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Logits [T, Q, N]."""
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        pairs = embedded.query_x.shape[1] * episode.ways
        logits = [
            self.fit(network.head, part.support_x, part.support_y, part.ways)(part.query_x)
            for part in embedded.split(max(1, PAIRS_AT_ONCE // pairs))
        ]
        return torch.cat(logits)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """`ComparedMaps` with the mean support maps."""
        attention = cast(CrossAttention, head)
        return ComparedMaps(attention, class_means(support, labels, ways), self.scale)


def _loss_of_positions(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [T, Q, M, N] of positions whose map has a label [T, Q]."""
    return cross_entropy(logits, labels.unsqueeze(-1).expand(logits.shape[:-1]))
