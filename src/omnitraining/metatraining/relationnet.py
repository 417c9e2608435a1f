"""Relation networks: a learned comparison of feature maps (Sung et al. 2018 [71], as in [13]).

[71] F. Sung, Y. Yang, L. Zhang, T. Xiang, P. H. S. Torr, T. M. Hospedales: "Learning to Compare:
Relation Network for Few-Shot Learning", CVPR 2018, https://arxiv.org/abs/1711.06025

[13] W.-Y. Chen, Y.-C. Liu, Z. Kira, Y.-C. F. Wang, J.-B. Huang: "A Closer Look at Few-shot
Classification", ICLR 2019, https://arxiv.org/abs/1904.04232
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode
from omnitraining.errors import InputError
from omnitraining.limits import check_least
from omnitraining.losses import cross_entropy, squared_error
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.precision import at_least_float32

PAIRS_AT_ONCE = 2000  # pairs of query and class compared at a time at test


class Relation(nn.Module):
    """Scores each pair of a class map and a query map: two convolutions, two linear layers.

    The first convolution has both maps as its channels. It is linear, so that it is computed once
    per map, not once per pair, and summed.

    Args:
        channels: of the maps.
        side: of the maps, in pixels, 4 or more.
        hidden: size of the layer before the score.
    """

    def __init__(self, channels: int, side: int, hidden: int) -> None:
        """Make the layers, initialized by torch's defaults."""
        super().__init__()
        self.channels, self.side = channels, side
        self.conv1 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.fc1 = nn.Linear(channels * (side // 4) ** 2, hidden)
        self.fc2 = nn.Linear(hidden, 1)

    def forward(self, classes: Tensor, query: Tensor) -> Tensor:
        """Scores [T, Q, N] of class maps [T, N, D] and query maps [T, Q, D], D = C * side^2."""
        tasks, ways, queries = *classes.shape[:2], query.shape[1]
        of_class, of_query = self.conv1.weight.chunk(2, 1)
        maps = (tasks, -1, self.channels, self.side, self.side)
        left = F.conv2d(classes.reshape(maps).flatten(0, 1), of_class, padding=1)
        right = F.conv2d(query.reshape(maps).flatten(0, 1), of_query, self.conv1.bias, padding=1)
        # Channels come last in memory, where pooling is much faster.
        left, right = (
            x.contiguous(memory_format=torch.channels_last).unflatten(0, (tasks, -1))
            for x in (left, right)
        )
        left, right = left.unsqueeze(1), right.unsqueeze(2)
        if self.bn1.training:  # not self.training: a teacher's norms alone are in training
            pairs = self.bn1((left + right).flatten(0, 2))
        else:  # with fixed statistics the norm, too, is linear and can go before the pairing
            shift = self.bn1(left.new_zeros(1, self.channels, 1, 1))
            scale = self.bn1(torch.ones_like(shift)) - shift
            pairs = (scale * left + (scale * right + shift)).flatten(0, 2)
        # Pooling before the ReLU gives the same with a quarter of the work.
        x = F.relu(F.max_pool2d(pairs, 2))
        x = F.relu(F.max_pool2d(self.bn2(self.conv2(x)), 2))
        scores: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return scores.view(tasks, queries, ways)


@dataclass(frozen=True)
class RelationNet(MetaTraining):
    """Classifies a query by a learned score of its map beside the mean map of each class.

    The features of the backbone must be a flattened map: ``Conv4`` with ``pooled_blocks: 2``, a
    ``ResNet`` with ``pool: false``, or any other. Batch norm keeps running statistics with torch's
    momentum; in [13] these are the statistics of the last batch.

    Args:
        channels: C of the backbone's last map [C, side, side].
        hidden: size of the layer before the score.
        target: ``"one-hot"``: sigmoid and squared error, as the authors train it;
            ``"softmax"``: cross-entropy over classes.

    Raises:
        InputError: a number is below 1.

    Example:
        >>> import torch
        >>> from omnitraining import RelationNet
        >>> relation = RelationNet(channels=4).head(features=4 * 5 * 5, outputs=2).eval()
        >>> classes, queries = torch.rand(1, 2, 100), torch.rand(1, 3, 100)
        >>> relation(classes, queries).shape  # scores [T, Q, N]
        torch.Size([1, 3, 2])
    """

    channels: int = 64
    hidden: int = 8
    target: Literal["one-hot", "softmax"] = "one-hot"

    def __post_init__(self) -> None:
        check_least("metatraining", self, 1, "channels", "hidden")

    def head(self, features: int, outputs: int) -> nn.Module:
        """`Relation` of maps of ``features`` channels; it can compare any number of classes.

        Raises:
            InputError: features are not a flattened square map of 4x4 or more.
        """
        side = math.isqrt(features // self.channels)
        if side < 4 or self.channels * side**2 != features:
            raise InputError(
                f"metatraining.channels is {self.channels}, but the backbone gives {features} "
                "features: RelationNet needs a flattened square map of 4x4 or more, as of Conv4 "
                "with pooled_blocks 2 or of ResNet with pool false"
            )
        return Relation(self.channels, side, self.hidden)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of scores [T, Q, N] against class indices [T, Q], by ``target``."""
        if self.target == "softmax":
            return cross_entropy(outputs, targets)
        outputs = at_least_float32(outputs)
        one_hot = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
        return squared_error(torch.sigmoid(outputs), one_hot)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Scores [T, Q, N]; the greatest is the prediction."""
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        pairs = embedded.query_x.shape[1] * episode.ways
        parts = embedded.split(max(1, PAIRS_AT_ONCE // pairs))
        return torch.cat([network.head(part.prototypes(), part.query_x) for part in parts])
