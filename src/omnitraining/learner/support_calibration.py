"""Calibration of a model without validation tasks, by the support images of a fit.

Each support image is predicted by heads that were fitted without it (see `held_out`). These
predictions give the temperature, and their similarities the threshold of ``accept_rate``. There are
few of them, so that the temperature has a prior: where all are correct, likelihood alone would make
every prediction certain.
"""

import math

import torch
from torch import Tensor

from omnitraining.evaluation import ENSEMBLE
from omnitraining.learner.calibration import QUANTILES, WEIGHTED, Calibration
from omnitraining.learner.ensemble import Ensemble
from omnitraining.learner.fitting import Support
from omnitraining.learner.held_out import Predictions
from omnitraining.learner.predictor import MIN_PROBABILITY

SPREAD = 1.0
"""Standard deviation of the prior of the logarithm of a temperature, which has mean 0."""

LARGEST = math.log(50)
"""Of the logarithm of a temperature."""


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


def likely_temperature(probabilities: Tensor, labels: Tensor) -> float:
    """The most probable temperature, given predictions and a log-normal prior.

    Args:
        probabilities: [B, N], of temperature 1.
        labels: class indices [B].
    """
    logits = probabilities.double().clamp_min(MIN_PROBABILITY).log()
    candidates = torch.linspace(-LARGEST, LARGEST, 201, dtype=torch.float64)
    scaled = (logits / candidates.exp().view(-1, 1, 1)).log_softmax(-1)
    index = labels.view(1, -1, 1).expand(len(candidates), -1, 1)
    losses = -scaled.gather(-1, index).sum((1, 2)) + 0.5 * (candidates / SPREAD).square()
    return float(candidates[losses.argmin()].exp())
