"""Temperatures, ensemble weights and OOD thresholds, fitted on validation episodes.

Probabilities are calibrated by one temperature for each flow and each ensemble (Guo et al. 2017,
"On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599). Temperatures depend
on the number of support images per class; between the measured numbers they are interpolated.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import class_means
from omnitraining.datasets.images import LabeledImages
from omnitraining.evaluation import ENSEMBLE, Inference, best_ensemble_weights, ensemble_mean
from omnitraining.learner.predictor import MIN_PROBABILITY
from omnitraining.model import Model
from omnitraining.tasks.classification.episodes import TaskIndices
from omnitraining.tasks.classification.problem import (
    VALIDATION_TASKS,
    Classification,
)

WEIGHTED = "vote"
"""Key of the weighted ensemble that the run was evaluated with, in files too; beside it, "ensemble"
is the equal mean of all trained flows."""
SHOTS = (1, 2, 5, 10)
IMAGES = 40  # of each validation class, so that embedding them takes seconds, not hours
QUANTILES = 101

_FILE_KEYS = {"ensemble_weights": "votes", "similarity": "familiarity"}
"""Names of fields in files, where they differ."""


@dataclass(frozen=True)
class Calibration:
    """Measured on validation episodes with several numbers of shots.

    A head is a flow alone, "ensemble" (the mean of all flows), or "vote" (the weighted ensemble
    that the run was evaluated with).

    Attributes:
        shots: support images per class, rising.
        ensemble_weights: weight of each flow in the weighted ensemble, per number of shots.
        temperatures: by head, per number of shots.
        similarity: quantiles of the similarity of queries of known classes, from the 0th to the
            100th, by head, per number of shots. Absent for flows whose features are adapted.
    """

    shots: tuple[int, ...]
    ensemble_weights: dict[str, list[float]]
    temperatures: dict[str, list[float]]
    similarity: dict[str, list[list[float]]]

    def __repr__(self) -> str:
        shots = ", ".join(map(str, self.shots))
        return f"<calibration of {', '.join(self.temperatures)} at {shots} images per class>"

    def weights(self, shots: float) -> dict[str, float]:
        """Weights above 0 of the weighted ensemble, by flow; they sum to 1."""
        weights = {f: self._at(shots, values) for f, values in self.ensemble_weights.items()}
        return {flow: weight for flow, weight in weights.items() if weight > 0}

    def temperature(self, head: str, shots: float) -> float:
        """Temperature of a head at a number of support images per class."""
        return self._at(shots, self.temperatures[head])

    def threshold(self, head: str, shots: float, accept_rate: float) -> float:
        """The similarity that a share of the queries of known classes reaches."""
        shares = np.linspace(0, 1, QUANTILES)
        return float(np.interp(1 - accept_rate, shares, self.quantiles(head, shots)))

    def ranks(
        self, head: str, shots: float, similarity: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Share of the queries of known classes that have a lower similarity, of each image [B]."""
        shares = np.linspace(0, 1, QUANTILES)
        return np.asarray(np.interp(similarity, self.quantiles(head, shots), shares), np.float64)

    def quantiles(self, head: str, shots: float) -> NDArray[np.float64]:
        """Quantiles [QUANTILES] of the similarity of queries of known classes."""
        rows = np.asarray(self.similarity[head], np.float64)
        row = self._at(shots, [*range(len(rows))])
        low, high = rows[int(row)], rows[int(np.ceil(row))]
        return np.asarray(low + (row % 1) * (high - low), np.float64)

    def _at(self, shots: float, values: list[float]) -> float:
        """Interpolated linearly in the logarithm of the shots."""
        return float(np.interp(np.log(shots), np.log(self.shots), values))

    def as_json(self) -> dict[str, Any]:
        """The values as they are kept in files."""
        return {_FILE_KEYS.get(key, key): value for key, value in asdict(self).items()}


def unmeasured(flow: str) -> Calibration:
    """A calibration that changes nothing and rejects nothing, of a model without validation tasks.

    Args:
        flow: the only one that the model has.
    """
    return Calibration((1,), {flow: [1.0]}, {h: [1.0] for h in (flow, ENSEMBLE, WEIGHTED)}, {})


@torch.no_grad()
def calibrate(problem: Classification, model: Model, inference: Inference) -> Calibration:
    """Measure a trained model on the validation episodes of its problem, with up to 10 shots."""
    images = _first_of_each(problem.validation, IMAGES)
    smallest = int(images.labels.bincount().min())
    most = max(1, smallest - problem.protocol.queries)
    shots = tuple(k for k in SHOTS if k <= most)
    problem = problem.with_test_shots(shots)
    ways = max(2, min(problem.protocol.test_ways, len(images.classes)))
    features: dict[nn.Module, Tensor] = {}
    ensemble_weights: dict[str, list[float]] = {}
    temperatures: dict[str, list[float]] = {}
    similarity: dict[str, list[list[float]]] = {}
    for k in shots:
        probabilities, labels, tasks = problem.probabilities(
            model, inference, images, ways, k, VALIDATION_TASKS, features
        )
        weights = _ensemble_weights(model, inference, probabilities, labels)
        for flow, weight in weights.items():
            ensemble_weights.setdefault(flow, []).append(weight)
        for head, parts in head_weights(model, weights).items():
            temperature = fit_temperature(ensemble_mean(probabilities, parts), labels)
            temperatures.setdefault(head, []).append(temperature)
            similarities = _similarity(model, inference, features, tasks, parts)
            if similarities is not None:
                similarity.setdefault(head, []).append(_quantiles(similarities))
    return Calibration(shots, ensemble_weights, temperatures, similarity)


def _ensemble_weights(
    model: Model, inference: Inference, probabilities: Mapping[str, Tensor], labels: Tensor
) -> dict[str, float]:
    """Weights by flow, as the evaluation of the run chooses them."""
    members = inference.members(model.trained_flows)
    if inference.ensemble_weights == "validation" and len(members) > 1:
        return best_ensemble_weights({flow: probabilities[flow] for flow in members}, labels)
    return dict.fromkeys(members, 1 / len(members))


def _quantiles(values: Tensor) -> list[float]:
    shares = torch.linspace(0, 1, QUANTILES, dtype=torch.float64)
    return [round(value, 6) for value in values.flatten().double().quantile(shares).tolist()]


def head_weights(model: Model, weights: dict[str, float]) -> dict[str, dict[str, float]]:
    """Weights by flow of every head: each flow alone, the mean of all, the weighted ensemble.

    Args:
        model: the model.
        weights: of the weighted ensemble.
    """
    flows = model.trained_flows
    single = {flow: {flow: 1.0} for flow in flows}
    return {**single, ENSEMBLE: dict.fromkeys(flows, 1 / len(flows)), WEIGHTED: weights}


def fit_temperature(probabilities: Tensor, labels: Tensor) -> float:
    """The temperature from 0.02 to 50 with the least mean cross-entropy.

    With beta = 1 / temperature the cross-entropy is convex in beta; its slope is the expected
    minus the true logit, so that bisection finds the zero.

    Args:
        probabilities: [..., N].
        labels: class indices [...].
    """
    logits = probabilities.double().clamp_min(MIN_PROBABILITY).log()
    truth = logits.gather(-1, labels.unsqueeze(-1)).mean()
    low, high = np.log(0.02), np.log(50.0)  # of beta
    for _ in range(40):
        middle = (low + high) / 2
        expected = ((np.exp(middle) * logits).softmax(-1) * logits).sum(-1).mean()
        low, high = (low, middle) if expected > truth else (middle, high)
    return float(np.exp(-(low + high) / 2))


def _similarity(
    model: Model,
    inference: Inference,
    features: Mapping[nn.Module, Tensor],
    tasks: TaskIndices,
    weights: Mapping[str, float],
) -> Tensor | None:
    """Similarity [T, Q] of the queries of tasks, as a fitted predictor computes it.

    None if the backbone of a flow is adapted, so that features [M, D] of it are missing.
    """
    similarities = {}
    for flow in weights:
        backbone = model.heads_of(flow, *inference.heads)[0].network.backbone
        if backbone not in features:
            return None
        similarities[flow] = cosine_similarities(features[backbone], tasks).amax(-1)
    return ensemble_mean(similarities, weights)


def cosine_similarities(features: Tensor, tasks: TaskIndices) -> Tensor:
    """Cosines [T, Q, N] of query features and the prototypes of the support sets.

    Args:
        features: of all images [M, D].
        tasks: T tasks of N classes.
    """
    count, ways, shots = tasks.support.shape
    labels = torch.arange(ways, device=features.device).repeat_interleave(shots).expand(count, -1)
    support, query = (features[part.flatten(1)] for part in (tasks.support, tasks.query))
    prototypes = class_means(support, labels, ways)
    return F.normalize(query, dim=-1) @ F.normalize(prototypes, dim=-1).mT


def _first_of_each(images: LabeledImages, most: int) -> LabeledImages:
    """The first ``most`` images of every class."""
    order = images.labels.argsort(stable=True)
    counts = images.labels.bincount()
    rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[images.labels[order]]
    kept = order[rank < most].sort().values
    if len(kept) == len(order):
        return images
    return LabeledImages(images.images[kept], images.labels[kept], images.classes, images.name)
