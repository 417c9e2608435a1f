"""A check of a fit by its own support images: each is predicted by heads fitted without it.

A fifth of the images of each class (one, of five or fewer) is held out at a time, and predicted by
heads that are fitted on the others. Their accuracy is compared with the calibrated confidence, and
their similarity with the similarity of the queries of validation episodes.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from omnitraining.batches import class_means
from omnitraining.evaluation import ensemble_mean
from omnitraining.learner.ensemble import Ensemble
from omnitraining.learner.fitting import Support
from omnitraining.learner.predictor import tempered
from omnitraining.learner.trained import TrainedModel
from omnitraining.metatraining import MetaTraining
from omnitraining.pretraining import LogisticHead, PreTraining

FOLDS = 5
STEPS = 25  # of a logistic head; 100 change the mean confidence by less than a hundredth
MAX_NUMBERS = 2**24  # in the features of folds that are fitted in one batch

# Chosen on validation classes: of Glyphs for the false alarms, of photographs for the others.
RANK_SPREAD = 0.42  # of the rank of one image, with what images of one class have in common
DOMAIN_RANK, DOMAIN_GAP = 0.06, 0.03  # what differs between sets of images that are alike enough
BOTH, SINGLE = 2.1, 3.0  # deviations at which both measures together, or one of them, are odd

Predictions = tuple[Tensor, Tensor, Tensor]
"""Uncalibrated probabilities [B, N], similarity [B], and class index [B] of held-out images."""


@dataclass(frozen=True)
class FitReport:
    """Accuracy, confidence and similarity of support images that were held out in turn.

    Attributes:
        images: how many were held out; 0 if no class has two images, or an algorithm adapts the
            whole network, which would have to be repeated for each fold.
        accuracy: share of them whose label was predicted.
        confidence: their mean calibrated probability, which should be near `accuracy`.
        rank: mean share of validation queries with a lower similarity, near 0.5 if the images are
            like validation images; None where similarities were not measured.
        deviation: by how many standard deviations accuracy is below confidence.
        rank_deviation: by how many `rank` is below 0.5.
    """

    images: int
    accuracy: float | None = None
    confidence: float | None = None
    rank: float | None = None
    deviation: float = 0.0
    rank_deviation: float = 0.0

    @property
    def calibrated(self) -> bool | None:
        """Whether calibration holds for these images; None if it is not known."""
        if not self.images:
            return None
        # A measure that is better than expected does not compensate for the other.
        both = max(self.deviation, 0.0), max(self.rank_deviation, 0.0)
        return sum(both) / 2**0.5 < BOTH and max(both) < SINGLE

    def __str__(self) -> str:
        return self.in_words()

    def in_words(self) -> str:
        """The accuracy, in one line."""
        if not self.images:
            return "accuracy is not known: no class has two images"
        return (
            f"of {self.images} images, each held out once, {self.accuracy or 0:.0%} are predicted "
            f"correctly; mean probability {self.confidence or 0:.0%}"
        )

    def warning(self, name: str) -> str:
        """The warning, in one line.

        Args:
            name: of the model.
        """
        facts = (
            f"of {self.images} support images, each held out once, {self.accuracy or 0:.0%} are "
            f"predicted correctly where {self.confidence or 0:.0%} are expected"
        )
        if self.rank is not None:
            facts += f", and {1 - self.rank:.0%} of validation images have a higher similarity "
            facts += "(about half should)"
        return (
            f"these images are unlike those that {name} was validated on: {facts}; probabilities "
            "are not calibrated here, and accept_rate is not reliable"
        )


def one_image_each(trained: TrainedModel) -> str:
    """The warning of a fit with one image of each class, of which none can be held out.

    Args:
        trained: the model.
    """
    if trained.frozen:
        return f"each class has one image: probabilities of {trained.name} are not calibrated"
    return (
        "each class has one image, so it cannot be measured whether they are like those that "
        f"{trained.name} was validated on: if they are not, probabilities and accept_rate are not "
        "reliable; give two images of a class"
    )


@torch.no_grad()
def held_out(ensemble: Ensemble, support: Support, found: Predictions | None) -> FitReport:
    """Accuracy, confidence and similarity of support images that were held out in turn.

    Args:
        ensemble: the flows of the fit.
        support: of the fit.
        found: what `predictions` returned.
    """
    if found is None:
        return FitReport(0)
    probabilities, similarity, labels = found
    shots = kept_shots(support)
    calibration = ensemble.trained.calibration
    temperature = calibration.temperature(ensemble.head, shots)
    confidence, guess = tempered(probabilities, temperature).double().max(-1)
    correct = (guess == labels).double()
    rank = None
    if ensemble.head in calibration.similarity:
        scores = similarity.double().numpy()
        rank = float(calibration.ranks(ensemble.head, shots, scores).mean())
    return _report(confidence, correct, rank)


def kept_shots(support: Support) -> float:
    """Images per class, on average, that heads are fitted on while others are held out."""
    return folds(support.labels, support.ways)[1].shape[1] / support.ways


@torch.no_grad()
def predictions(ensemble: Ensemble, support: Support) -> Predictions | None:
    """Predictions of support images by heads that are fitted without them.

    Args:
        ensemble: the flows of the fit.
        support: of the fit.

    Returns:
        The predictions of all images that were held out; None if no class has two images, or an
        algorithm adapts the network.
    """
    held, kept, first = folds(support.labels, support.ways)
    if not len(held):
        return None
    weights = ensemble.weights(kept_shots(support))
    heads = [head for flow in weights for head in ensemble.heads(flow)]
    if not all(head.algorithm.needs_only_features for head in heads):
        return None
    widest = max(x[0].numel() for x in support.kept.values())
    step = max(1, MAX_NUMBERS // max(kept.shape[1] * widest, 1))
    parts = [
        _predict_folds(ensemble, support, weights, *pair)
        for pair in zip(held.split(step), kept.split(step), strict=True)
    ]
    probabilities, similarity = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return probabilities[first], similarity[first], support.labels[held][first]


def folds(labels: Tensor, ways: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of the images held out [F, L] and kept [F, S - L], and whether for the first time.

    All folds are equal in size, so that heads can be fitted in one batch: a class with fewer images
    than there are folds has some held out again, which the third tensor [F, L] marks as False.

    Args:
        labels: class indices [S].
        ways: number of classes.
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
    held = order[starts[owner] + place % counts[owner]]
    keeps = torch.ones(number, len(labels), dtype=torch.bool).scatter_(1, held, False)
    kept = keeps.nonzero()[:, 1].view(number, -1)
    return held, kept, place < counts[owner]


def _predict_folds(
    ensemble: Ensemble, support: Support, weights: dict[str, float], held: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Probabilities [F, L, N] and similarity [F, L] of the images held out of some folds."""
    labels = support.labels[kept].to(ensemble.trained.device)
    probabilities, similarity = {}, {}
    for flow in weights:
        features = support.kept[flow]
        x, query = features[kept], features[held]
        logits = [
            _with_fewer_steps(algorithm).fit(network.head, x, labels, support.ways)(query)
            for _, network, algorithm in ensemble.heads(flow)
        ]
        probabilities[flow] = torch.stack([part.softmax(-1) for part in logits]).mean(0)
        prototypes = F.normalize(class_means(x, labels, support.ways), dim=-1)
        similarity[flow] = (F.normalize(query, dim=-1) @ prototypes.mT).amax(-1)
    return ensemble_mean(probabilities, weights), ensemble_mean(similarity, weights)


def _with_fewer_steps(algorithm: PreTraining | MetaTraining) -> PreTraining | MetaTraining:
    """The algorithm, with fewer steps of a logistic head: a fit must not take twice as long."""
    head = getattr(algorithm, "new_head", None)
    if not isinstance(head, LogisticHead):
        return algorithm
    fewer = replace(head, iterations=min(head.iterations, STEPS))
    changed: PreTraining | MetaTraining = replace(cast(Any, algorithm), new_head=fewer)
    return changed


def _report(confidence: Tensor, correct: Tensor, rank: float | None) -> FitReport:
    """Deviations, whose variance has a part that more images do not make smaller."""
    count = len(correct)
    expected, accuracy = confidence.mean().item(), correct.mean().item()
    variance = ((confidence * (1 - confidence)).sum().item() + 0.25) / count**2
    deviation = (expected - accuracy) / (variance + DOMAIN_GAP**2) ** 0.5
    spread = (RANK_SPREAD**2 / count + DOMAIN_RANK**2) ** 0.5
    rank_deviation = 0.0 if rank is None else (0.5 - rank) / spread
    return FitReport(
        count, accuracy, expected, rank, float(deviation), float(np.float64(rank_deviation))
    )
