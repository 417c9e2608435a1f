"""Robust ensembles of classifiers, distilled to one network (Dvornik et al. 2019 [20]).

[20] N. Dvornik, J. Mairal, C. Schmid: "Diversity with Cooperation: Ensemble Methods for Few-Shot
Classification", ICCV 2019, https://arxiv.org/abs/1903.11341 and its code
"""

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.backbones.network_ensemble import NetworkEnsemble
from omnitraining.batches import Episode, class_means
from omnitraining.heads import LinearClassifier
from omnitraining.limits import check_least, check_part, check_positive, check_proper_part
from omnitraining.losses import cross_entropy
from omnitraining.network import Network
from omnitraining.precision import at_least_float32
from omnitraining.pretraining.base import PreTraining

SCALE = 20.0  # of the cosines at test, as in the authors' code


class Classifiers(nn.Module):
    """A linear classifier on the features of each of K networks.

    Args:
        networks: K.
        features: of all networks, K D.
        outputs: number of classes N.
        keep: probability that a network takes part in a training step; one does in any case.
        dropout: probability that a feature is dropped in training.
    """

    def __init__(
        self, networks: int, features: int, outputs: int, keep: float, dropout: float
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(features // networks, outputs) for _ in range(networks)
        )
        self.dropout, self.keep = nn.Dropout(dropout), keep

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K, N] of features [B, K D]; the logits of a network left out are 0."""
        parts = self.dropout(x).chunk(len(self.layers), -1)
        logits = [layer(part) for layer, part in zip(self.layers, parts, strict=True)]
        stacked = torch.stack(logits, -2)
        if not self.training:
            return stacked
        draws = torch.rand(len(logits))
        kept = (draws < self.keep) | (draws == draws.min())
        return stacked * kept.to(stacked.device).unsqueeze(1)


class MeanOfHeads(nn.Module):
    """Logarithms of the mean probabilities of heads, each on its own part of the features.

    Args:
        heads: from features [T, Q, D] to logits [T, Q, N], one for each of K parts.
    """

    def __init__(self, heads: list[nn.Module]) -> None:
        """Register the heads."""
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, query: Tensor) -> Tensor:
        """Log-probabilities [T, Q, N] of query features [T, Q, K D]."""
        parts = query.chunk(len(self.heads), -1)
        each = [head(part).log_softmax(-1) for head, part in zip(self.heads, parts, strict=True)]
        return torch.stack(each).logsumexp(0) - math.log(len(each))


@dataclass(frozen=True)
class Robust(PreTraining):
    """Classifiers on several networks that are trained together, with a loss of their relation.

    L = sum_k cross-entropy of network k + w mean_{j != k} psi(p_j, p_k)

    p_k are the probabilities of network k without the true class, normalized again. With
    ``"cooperation"``, psi is KL(p_j || p_k); with ``"diversity"`` it is their cosine. A robust
    ensemble has cooperation, and makes the networks differ by other means: each gets its own
    augmentation of an image, is left out of a step at random, and has dropout before its
    classifier. The authors' code does not normalize again, and has the cross-entropy in place of
    the divergence.

    The networks are the networks of the backbone, a `NetworkEnsemble`. Any other backbone is one
    network: with the run of an ensemble as ``teacher_run`` it is distilled from that ensemble. At
    test, each network predicts the nearest class mean by the cosine, and their probabilities are
    averaged.

    Args:
        relation: ``"cooperation"``, ``"diversity"`` or ``"none"``.
        weight: w; 10 in the authors' code, and 1 for diversity.
        relation_temperature: of the probabilities in psi; 1 in the authors' code, and 5 for
            diversity.
        keep: probability that a network takes part in a training step; one does in any case.
        dropout: probability that a feature is dropped before the classifiers of an ensemble.
        temperature: of both distributions in the distillation.
        kd_weight: weight of the distillation, in [0, 1]; the cross-entropy has the rest.

    Raises:
        InputError: an option is out of range.

    Example:
        >>> import torch
        >>> from omnitraining import MLP, NetworkEnsemble, Robust
        >>> backbone = NetworkEnsemble(lambda: MLP(2), networks=3, own_views=False)
        >>> algorithm = Robust(keep=1.0)
        >>> head = algorithm.head_for(backbone, features=192, outputs=5)
        >>> logits = head(backbone(torch.rand(4, 2)))
        >>> logits.shape
        torch.Size([4, 3, 5])
        >>> algorithm.loss(logits, torch.tensor([0, 1, 2, 4])).item() > 0
        True
    """

    relation: Literal["cooperation", "diversity", "none"] = "cooperation"
    weight: float = 10.0
    relation_temperature: float = 1.0
    keep: float = 0.7
    dropout: float = 0.1
    temperature: float = 5.0
    kd_weight: float = 0.8

    def __post_init__(self) -> None:
        check_positive("pretraining", self, "relation_temperature", "temperature")
        check_least("pretraining", self, 0, "weight")
        check_part("pretraining", self, "keep", "kd_weight")
        check_proper_part("pretraining", self, "dropout")

    def head(self, features: int, outputs: int) -> nn.Module:
        """`Classifiers` of one network."""
        return Classifiers(1, features, outputs, keep=1.0, dropout=0.0)

    def head_for(self, backbone: nn.Module, features: int, outputs: int) -> nn.Module:
        """`Classifiers` of the networks of a backbone."""
        if not isinstance(backbone, NetworkEnsemble):
            return self.head(features, outputs)
        return Classifiers(len(backbone.networks), features, outputs, self.keep, self.dropout)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropies of all networks that are not left out, and their relation; a scalar.

        Args:
            outputs: logits [..., K, N]; 0 everywhere for a network that is left out.
            targets: class indices [...].
        """
        logits = at_least_float32(outputs).reshape(-1, *outputs.shape[-2:])
        taken = (logits != 0).flatten(2).any(2).any(0)
        logits = logits[:, taken] if taken.any() else logits
        targets, networks = targets.flatten(), logits.shape[1]
        among_classes = cross_entropy(logits, targets.unsqueeze(1).expand(-1, networks)) * networks
        if networks == 1 or self.relation == "none":
            return among_classes
        relations = self._relations(logits / self.relation_temperature, targets)
        pairs = networks * (networks - 1) * len(targets)
        return among_classes + self.weight * relations.sum() / pairs

    def _relations(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Psi of all pairs of networks [B, K, K], 0 of each with itself."""
        truth = F.one_hot(targets, logits.shape[-1]).bool().unsqueeze(1)
        logs = logits.masked_fill(truth, -math.inf).log_softmax(-1)
        p, logs = logs.exp(), logs.masked_fill(truth, 0.0)
        if self.relation == "diversity":
            unit = F.normalize(p, dim=-1)
            cosines = unit @ unit.mT
            return cosines - torch.diag_embed(cosines.diagonal(dim1=1, dim2=2))
        return (p * logs).sum(-1, keepdim=True) - p @ logs.mT

    def distillation_loss(self, outputs: Tensor, targets: Tensor, teacher_logits: Tensor) -> Tensor:
        """Distillation of the mean probabilities of an ensemble, and the loss; a scalar.

        w t^2 KL(mean_k softmax(teacher_k / t) || softmax(student / t)) + (1 - w) loss, with the
        weight w = ``kd_weight`` and the temperature t.

        Args:
            outputs: logits [B, 1, N], or [B, K, N] of several networks, which each are distilled.
            targets: class indices [B].
            teacher_logits: of the networks of the ensemble [B, K', N], for the same inputs.
        """
        teacher = at_least_float32(teacher_logits) / self.temperature
        target = teacher.softmax(-1).mean(-2, keepdim=True)
        student = (at_least_float32(outputs) / self.temperature).log_softmax(-1)
        divergence = (torch.xlogy(target, target) - target * student).sum((-2, -1)).mean()
        distilled = self.temperature**2 * divergence
        return self.kd_weight * distilled + (1 - self.kd_weight) * self.loss(outputs, targets)

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Log-probabilities [T, Q, N] of the queries, the mean over networks."""
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        head = self.fit(network.head, embedded.support_x, episode.support_y, episode.ways)
        with torch.autocast(embedded.query_x.device.type, enabled=False):
            outputs: Tensor = head(at_least_float32(embedded.query_x))
        return outputs

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """Class means in the features of each network, compared by the cosine."""
        parts = at_least_float32(support).chunk(len(cast(Classifiers, head).layers), -1)
        means = [F.normalize(class_means(part, labels, ways), dim=-1) for part in parts]
        return MeanOfHeads([LinearClassifier(mean, None, True, SCALE) for mean in means])
