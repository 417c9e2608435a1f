"""Calibration by the support images of a fit.

Each support image is predicted by heads that were fitted without it (see `held_out`). These
predictions give the temperature, and their similarities the threshold of ``accept_rate``. There are
few of them, so that the temperature has a prior: where all are correct, likelihood alone would make
every prediction certain.

A model without validation tasks, a frozen backbone, has nothing else (`support_calibration`). One
with a calibration keeps it, moved to the domain of the support images (`domain_calibration`).
"""

import math

import torch
from torch import Tensor

from omnitraining.evaluation import ENSEMBLE
from omnitraining.learner.calibration import QUANTILES, WEIGHTED, Calibration
from omnitraining.learner.ensemble import Ensemble
from omnitraining.learner.fitting import Support
from omnitraining.learner.held_out import Predictions, kept_shots
from omnitraining.learner.predictor import MIN_PROBABILITY, tempered

SPREAD = 1.0
"""Standard deviation of the prior of the logarithm of a temperature, which has mean 0."""

# Chosen on validation classes of six data sets with the recipe of the model photos, trained without
# the data set: with two, three and five images of each class the largest calibration error is 4.3
# points.
DOMAIN_MEAN, DOMAIN_SPREAD = 0.1, 0.45
"""As 0 and `SPREAD`, for a factor of the temperature that was fitted on validation tasks: in
another domain a model is a little too certain."""
# Chosen on validation classes of CIFAR-FS, Cars, MiniPlaces and Omniglot with the model photos.
SHRINKAGE = 10
"""Number of images that the validation tasks count for in the spread of similarities."""
MARGIN = 15
"""Number of images at which the variance of similarities is doubled, to allow for its error."""

LARGEST = math.log(50)
"""Largest logarithm of a temperature."""


def support_calibration(ensemble: Ensemble, support: Support, found: Predictions) -> Calibration:
    """The calibration of the flow of a frozen backbone.

    Args:
        ensemble: the only flow of the model.
        support: of the fit.
        found: predictions of its images, held out in turn.
    """
    probabilities, similarity, labels = found
    (flow,) = ensemble.members
    heads = (flow, ENSEMBLE, WEIGHTED)
    temperature = likely_temperature(probabilities, labels)
    shares = torch.linspace(0, 1, QUANTILES, dtype=torch.float64)
    quantiles = [round(x, 6) for x in similarity.double().quantile(shares).tolist()]
    shots = (max(1, round(support.shots)),)
    return Calibration(
        shots,
        {flow: [1.0]},
        {head: [temperature] for head in heads},
        {head: [quantiles] for head in heads},
    )


def domain_calibration(ensemble: Ensemble, support: Support, found: Predictions) -> Calibration:
    """The calibration of a model, moved to the domain of a support set.

    The temperatures are multiplied by one factor, which is about 1.1 a priori. The similarities of
    queries are shifted and scaled to the mean and spread of the support images: similarities in
    another domain are higher or lower for all images.

    Args:
        ensemble: the flows of the fit.
        support: of the fit.
        found: predictions of its images, held out in turn.

    Returns:
        A calibration at one number of shots, that of the support set.
    """
    probabilities, similarity, labels = found
    known, head = ensemble.trained.calibration, ensemble.head
    shots, kept = support.shots, kept_shots(support)
    before = tempered(probabilities, known.temperature(head, kept))
    factor = likely_temperature(before, labels, DOMAIN_SPREAD, DOMAIN_MEAN)
    quantiles = {}
    if head in known.similarity:
        expected = known.quantiles(head, kept)
        shift = similarity.double().mean().item() - expected.mean()
        count = len(similarity)
        spread = similarity.double().std().item() / max(expected.std(), 1e-9)
        stretch = spread ** (count / (count + SHRINKAGE)) * (1 + MARGIN / count) ** 0.5
        own = known.quantiles(head, shots)
        quantiles = {head: [(own.mean() + shift + stretch * (own - own.mean())).tolist()]}
    return Calibration(
        (max(1, round(shots)),),
        {flow: [weight] for flow, weight in known.weights(shots).items()},
        {name: [factor * known.temperature(name, shots)] for name in known.temperatures},
        quantiles,
    )


def likely_temperature(
    probabilities: Tensor, labels: Tensor, spread: float = SPREAD, mean: float = 0.0
) -> float:
    """The most probable temperature, given predictions and a log-normal prior.

    Args:
        probabilities: [B, N], of temperature 1.
        labels: class indices [B].
        spread: standard deviation of the prior of its logarithm.
        mean: its mean.
    """
    logits = probabilities.double().clamp_min(MIN_PROBABILITY).log()
    candidates = torch.linspace(-LARGEST, LARGEST, 201, dtype=torch.float64)
    scaled = (logits / candidates.exp().view(-1, 1, 1)).log_softmax(-1)
    index = labels.view(1, -1, 1).expand(len(candidates), -1, 1)
    losses = -scaled.gather(-1, index).sum((1, 2)) + 0.5 * ((candidates - mean) / spread).square()
    return float(candidates[losses.argmin()].exp())
