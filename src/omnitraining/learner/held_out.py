"""What a fit can know of itself: its support images, each judged by heads that have not seen it.

A fifth of the images of each class (one, of five or fewer) is left out at a time, and judged by the
heads that are fitted on the others. How often they are right is compared with the confidence that
calibration gave them, and their familiarity with that of the queries of validation tasks.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from omnitraining.batches import class_means
from omnitraining.learner.fitting import Support, flows_of, only_features, votes_of
from omnitraining.learner.predictor import tempered
from omnitraining.learner.trained import Trained
from omnitraining.metatraining import MetaTraining
from omnitraining.pretraining import LogisticHead, PreTraining

FOLDS = 5
STEPS = 25  # of a logistic head; 100 change the mean confidence by less than a hundredth
AT_ONCE = 2**24  # numbers in the features or Gram matrices of folds that are fitted side by side

# Chosen on validation classes: of Glyphs for the false alarms, of photographs for the others.
RANK_SPREAD = 0.42  # of the rank of one image, with what images of one class have in common
DOMAIN_RANK, DOMAIN_GAP = 0.06, 0.03  # what differs between sets of images that are alike enough
TOGETHER, ALONE = 2.1, 3.0  # deviations at which both measures together, or one of them, are odd


@dataclass(frozen=True)
class FitReport:
    """How the support images fared that were left out in turn.

    Attributes:
        images: how many were judged; 0 if no class has two images, or an algorithm adapts the
            whole network, which would have to be done anew for each fold.
        accuracy: share of them that was right.
        confidence: their mean calibrated probability, which should be near `accuracy`.
        rank: mean share of validation queries that were less familiar, near 0.5 if the images are
            like those of validation; None where familiarity was not measured.
        deviation: standard deviations by which accuracy is below confidence.
        rank_deviation: the same for `rank` below 0.5.
    """

    images: int
    accuracy: float | None = None
    confidence: float | None = None
    rank: float | None = None
    deviation: float = 0.0
    rank_deviation: float = 0.0

    @property
    def calibrated(self) -> bool | None:
        """Whether probabilities and familiarity are what calibration says; None if not known."""
        if not self.images:
            return None
        # One that is better than expected does not make up for the other.
        both = max(self.deviation, 0.0), max(self.rank_deviation, 0.0)
        return sum(both) / 2**0.5 < TOGETHER and max(both) < ALONE

    def warning(self, name: str) -> str:
        """What is wrong, in one line."""
        facts = (
            f"of {self.images} support images, each left out once, {self.accuracy or 0:.0%} are "
            f"right where {self.confidence or 0:.0%} are expected"
        )
        if self.rank is not None:
            facts += f", and {1 - self.rank:.0%} of validation images are more familiar (about half"
            facts += " should be)"
        return (
            f"these images are unlike those that {name} was validated on: {facts}; probabilities "
            "are not calibrated here, and reject is not reliable"
        )


@torch.no_grad()
def held_out(trained: Trained, support: Support, flow: str | None) -> FitReport:
    """Judge the support images that are left out in turn.

    Args:
        trained: the model.
        support: of the fit.
        flow: as a learner has it.
    """
    left, kept, first = folds(support.labels, support.ways)
    if not len(left):
        return FitReport(0)
    shots = kept.shape[1] / support.ways
    weights = votes_of(trained, flow, shots)
    if not only_features(trained, weights):
        return FitReport(0)
    head = flows_of(trained, flow)[0]
    size = max(
        kept.shape[1] * max(kept.shape[1], *(x[0].numel() for x in support.kept.values())), 1
    )
    step = max(1, AT_ONCE // size)
    parts = [
        _judged(trained, support, weights, *pair)
        for pair in zip(left.split(step), kept.split(step), strict=True)
    ]
    vote, familiarity = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    temperature = trained.calibration.temperature(head, shots)
    confidence, guess = tempered(vote, temperature)[first].double().max(-1)
    right = (guess == support.labels[left][first]).double()
    ranks = None
    if head in trained.calibration.familiarity:
        ranks = trained.calibration.ranks(head, shots, familiarity[first].double().numpy())
    return _report(confidence, right, None if ranks is None else float(ranks.mean()))


def folds(labels: Tensor, ways: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which images are left out [F, L] and kept [F, S - L], and whether for the first time [F, L].

    All folds are equal in size, so that heads can be fitted side by side: a class with fewer images
    than there are folds leaves some out again.
    """
    counts = labels.bincount(minlength=ways)
    order, starts = labels.argsort(stable=True), counts.cumsum(0) - counts
    number = min(FOLDS, int(counts.max()))
    if number < 2:
        nothing = torch.zeros(0, 0, dtype=torch.long)
        return nothing, nothing, nothing.bool()
    each = torch.where(counts > 1, (counts // number).clamp_min(1), 0)
    owner = torch.arange(ways).repeat_interleave(each)
    within = torch.arange(len(owner)) - (each.cumsum(0) - each)[owner]
    place = torch.arange(number).unsqueeze(1) * each[owner] + within
    left = order[starts[owner] + place % counts[owner]]
    keeps = torch.ones(number, len(labels), dtype=torch.bool).scatter_(1, left, False)
    kept = keeps.nonzero()[:, 1].view(number, -1)
    return left, kept, place < counts[owner]


def _judged(
    trained: Trained, support: Support, weights: dict[str, float], left: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """The vote [F, L, N] and familiarity [F, L] of images left out of some folds."""
    labels = support.labels[kept].to(trained.device)
    votes, cosines = [], []
    for flow, weight in weights.items():
        features = support.kept[flow]
        x, query = features[kept], features[left]
        logits = [
            _sooner(algorithm).fit(network.head, x, labels, support.ways)(query)
            for _, network, algorithm in trained.model.heads_of(flow, trained.inference.joint_head)
        ]
        votes.append(weight * torch.stack([part.softmax(-1) for part in logits]).mean(0))
        means = F.normalize(class_means(x, labels, support.ways), dim=-1)
        cosines.append(weight * (F.normalize(query, dim=-1) @ means.mT).amax(-1))
    return torch.stack(votes).sum(0), torch.stack(cosines).sum(0)


def _sooner(algorithm: PreTraining | MetaTraining) -> PreTraining | MetaTraining:
    """The algorithm, with fewer steps of a logistic head: a fit must not take twice as long."""
    head = getattr(algorithm, "new_head", None)
    if not isinstance(head, LogisticHead):
        return algorithm
    fewer = replace(head, iterations=min(head.iterations, STEPS))
    made: PreTraining | MetaTraining = replace(cast(Any, algorithm), new_head=fewer)
    return made


def _report(confidence: Tensor, right: Tensor, rank: float | None) -> FitReport:
    """Deviations, whose variance has a part that more images do not make smaller."""
    count = len(right)
    sure, hits = confidence.mean().item(), right.mean().item()
    variance = ((confidence * (1 - confidence)).sum().item() + 0.25) / count**2
    deviation = (sure - hits) / (variance + DOMAIN_GAP**2) ** 0.5
    spread = (RANK_SPREAD**2 / count + DOMAIN_RANK**2) ** 0.5
    odd = 0.0 if rank is None else (0.5 - rank) / spread
    return FitReport(count, hits, sure, rank, float(deviation), float(np.float64(odd)))
