"""Temperatures, ensemble weights and OOD thresholds, fitted on validation episodes.

Probabilities are calibrated by one temperature for each flow and each vote (Guo et al. 2017, "On
Calibration of Modern Neural Networks"). Temperatures depend on the number of support images per
class; between the numbers that were measured they are interpolated.
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
from omnitraining.evaluation import ENSEMBLE, Inference, ensemble_mean
from omnitraining.model import Model
from omnitraining.tasks.classification.episodes import TaskIndices
from omnitraining.tasks.classification.problem import (
    VALIDATION_TASKS,
    Classification,
    best_weights,
)

VOTE = "vote"  # as the run's inference has it, beside "ensemble", the mean of all trained flows
SHOTS = (1, 2, 5, 10)
IMAGES = 40  # of each validation class, so that embedding them takes seconds, not hours
QUANTILES = 101


@dataclass(frozen=True)
class Calibration:
    """Measured on validation tasks with several numbers of shots.

    Attributes:
        shots: support images per class, rising.
        votes: weight of each flow in the run's vote, by flow, per number of shots.
        temperatures: by head (each flow, "ensemble", "vote"), per number of shots.
        familiarity: quantiles of the familiarity of queries of known classes, from the 0th to the
            100th, by head, per number of shots. Absent for flows whose features change.
    """

    shots: tuple[int, ...]
    votes: dict[str, list[float]]
    temperatures: dict[str, list[float]]
    familiarity: dict[str, list[list[float]]]

    def vote(self, shots: float) -> dict[str, float]:
        """Weights of the flows that vote; they sum to 1."""
        weights = {flow: self._at(shots, values) for flow, values in self.votes.items()}
        return {flow: weight for flow, weight in weights.items() if weight > 0}

    def temperature(self, head: str, shots: float) -> float:
        """Temperature of a head at a number of support images per class."""
        return self._at(shots, self.temperatures[head])

    def threshold(self, head: str, shots: float, accepted: float) -> float:
        """Familiarity that a share of the queries of known classes reaches."""
        levels = np.linspace(0, 1, QUANTILES)
        found = [np.interp(1 - accepted, levels, q) for q in self.familiarity[head]]
        return self._at(shots, [float(value) for value in found])

    def ranks(
        self, head: str, shots: float, familiarity: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Share of the queries of known classes that are less familiar than each image [B]."""
        levels = np.linspace(0, 1, QUANTILES)
        rows = np.asarray(self.familiarity[head])
        row = self._at(shots, [*range(len(rows))])
        low, high = rows[int(row)], rows[int(np.ceil(row))]
        quantiles = low + (row % 1) * (high - low)
        return np.asarray(np.interp(familiarity, quantiles, levels), np.float64)

    def _at(self, shots: float, values: list[float]) -> float:
        return float(np.interp(np.log(shots), np.log(self.shots), values))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Calibration":
        return cls(**{**values, "shots": tuple(values["shots"])})


@torch.no_grad()
def calibrate(problem: Classification, model: Model, inference: Inference) -> Calibration:
    """Measure a trained model on the validation tasks of its problem, with up to 10 shots."""
    images = _first_of_each(problem.validation, IMAGES)
    smallest = int(images.labels.bincount().min())
    most = max(1, smallest - problem.protocol.queries)
    shots = tuple(k for k in SHOTS if k <= most)
    problem = problem.with_test_shots(shots)
    ways = max(2, min(problem.protocol.test_ways, len(images.classes)))
    known: dict[nn.Module, Tensor] = {}
    votes: dict[str, list[float]] = {}
    temperatures: dict[str, list[float]] = {}
    familiarity: dict[str, list[list[float]]] = {}
    for k in shots:
        heads, labels, tasks = problem.probabilities(
            model, inference, images, ways, k, VALIDATION_TASKS, known
        )
        voters = inference.members(model.trained_flows)
        vote = dict.fromkeys(voters, 1 / len(voters))
        if inference.ensemble_weights == "validation" and len(voters) > 1:
            vote = best_weights({flow: heads[flow] for flow in voters}, labels)
        for flow, weight in vote.items():
            votes.setdefault(flow, []).append(weight)
        for head, weights in head_weights(model, vote).items():
            mixed = ensemble_mean(heads, weights)
            temperatures.setdefault(head, []).append(fit_temperature(mixed, labels))
            familiar = _familiarity(model, inference, known, tasks, weights)
            if familiar is not None:
                levels = torch.linspace(0, 1, QUANTILES, dtype=torch.float64)
                quantiles = familiar.flatten().double().quantile(levels).tolist()
                familiarity.setdefault(head, []).append([round(value, 6) for value in quantiles])
    return Calibration(shots, votes, temperatures, familiarity)


def head_weights(model: Model, vote: dict[str, float]) -> dict[str, dict[str, float]]:
    """All ways to predict: each flow alone, the mean of all, and the vote; weights by flow."""
    flows = model.trained_flows
    alone = {flow: {flow: 1.0} for flow in flows}
    return {**alone, ENSEMBLE: dict.fromkeys(flows, 1 / len(flows)), VOTE: vote}


def fit_temperature(probabilities: Tensor, labels: Tensor) -> float:
    """The temperature of the least mean cross-entropy, from 0.02 to 50.

    With beta = 1 / temperature the cross-entropy is convex in beta; its slope is the expected
    minus the true logit, so that bisection finds the zero.

    Args:
        probabilities: [..., N].
        labels: [...].
    """
    logits = probabilities.double().clamp_min(1e-12).log()
    truth = logits.gather(-1, labels.unsqueeze(-1)).mean()
    low, high = np.log(0.02), np.log(50.0)  # of beta
    for _ in range(40):
        middle = (low + high) / 2
        expected = ((np.exp(middle) * logits).softmax(-1) * logits).sum(-1).mean()
        low, high = (low, middle) if expected > truth else (middle, high)
    return float(np.exp(-(low + high) / 2))


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, by confidence.

    Args:
        probabilities: [..., N].
        labels: [...].
        bins: of equal width.
    """
    confidence, guess = (x.flatten() for x in probabilities.max(-1))
    right = (guess == labels.flatten()).double()
    which = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, which, right - confidence.double())
    return gaps.abs().sum().item() / len(right)


def _familiarity(
    model: Model,
    inference: Inference,
    known: Mapping[nn.Module, Tensor],
    tasks: TaskIndices,
    weights: Mapping[str, float],
) -> Tensor | None:
    """Familiarity [T, Q] of the queries of tasks, as a fitted predictor would give it."""
    found = []
    for flow, weight in weights.items():
        network = model.heads_of(flow, inference.joint_head)[0].network
        features = known.get(network.backbone)
        if features is None:
            return None
        found.append(weight * cosines(features, tasks).amax(-1))
    return torch.stack(found).sum(0)


def cosines(features: Tensor, tasks: TaskIndices) -> Tensor:
    """Cosines [T, Q, N] of query features and the class means of the support sets.

    Args:
        features: of all images [M, D].
        tasks: T tasks of N classes.
    """
    count, ways, shots = tasks.support.shape
    labels = torch.arange(ways, device=features.device).repeat_interleave(shots).expand(count, -1)
    support, query = (features[part.flatten(1)] for part in (tasks.support, tasks.query))
    means = class_means(support, labels, ways)
    return F.normalize(query, dim=-1) @ F.normalize(means, dim=-1).mT


def _first_of_each(images: LabeledImages, most: int) -> LabeledImages:
    """The first so many images of every class."""
    order = images.labels.argsort(stable=True)
    counts = images.labels.bincount()
    rank = torch.arange(len(order)) - (counts.cumsum(0) - counts)[images.labels[order]]
    kept = order[rank < most].sort().values
    if len(kept) == len(order):
        return images
    return LabeledImages(images.images[kept], images.labels[kept], images.classes, images.name)
