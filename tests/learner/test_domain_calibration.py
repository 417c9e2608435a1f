"""The calibration of a trained model follows the domain of the support images."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from omnitraining import FewShotClassifier
from omnitraining.learner.calibration import Calibration
from omnitraining.learner.support_calibration import MARGIN, SHRINKAGE, domain_calibration
from tests.learner.models import untrained

WAYS = 5


def calibrated(labels: Tensor, probabilities: Tensor, similarity: Tensor) -> Calibration:
    """Of a model whose similarities are 0 to 1 at 4 shots, and 0.2 more at 5."""
    even = np.linspace(0, 1, 101)
    known = Calibration(
        (4, 5),
        {"pre": [0.4, 0.5], "meta": [0.6, 0.5]},
        {"pre": [1.0, 1.0], "vote": [2.0, 2.0]},
        {"vote": [even.tolist(), (even + 0.2).tolist()]},
    )
    shots = len(labels) / WAYS
    support = SimpleNamespace(labels=labels, ways=WAYS, shots=shots)
    ensemble = SimpleNamespace(trained=SimpleNamespace(calibration=known), head="vote")
    return domain_calibration(
        cast(Any, ensemble), cast(Any, support), (probabilities, similarity, labels)
    )


def drawn(images: int, sharpness: float) -> tuple[Tensor, Tensor]:
    """Labels, WAYS to a row, and logits that are too sharp for them by a factor."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(WAYS).repeat(images // WAYS)
    noise = torch.randn(len(labels), WAYS, generator=random, dtype=torch.float64)
    # With mean delta and variance delta on the true class, the logits are calibrated as they are.
    logits = noise * 1.5**0.5 + 1.5 * torch.nn.functional.one_hot(labels, WAYS)
    return labels, sharpness * logits


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperatures_are_multiplied_by_what_many_support_images_show(factor: float) -> None:
    labels, logits = drawn(5000, 2 * factor)  # the model's own temperature is 2
    found = calibrated(labels, logits.softmax(-1), torch.rand(len(labels)))
    assert found.temperatures["vote"][0] == pytest.approx(2 * factor, rel=0.15)
    assert found.temperatures["pre"][0] == pytest.approx(factor, rel=0.15)


def test_few_images_change_temperatures_little() -> None:
    labels, logits = drawn(10, 2 * 20.0)
    found = calibrated(labels, logits.softmax(-1), torch.rand(10))
    assert 2 < found.temperatures["vote"][0] < 2 * 10


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.3, 0.5), (-0.2, 2.0)])
def test_similarities_have_the_mean_and_spread_of_the_support_images(
    shift: float, stretch: float
) -> None:
    labels, logits = drawn(25, 2.0)
    quantiles = torch.linspace(0, 1, 101, dtype=torch.float64)
    own = quantiles[torch.linspace(0, 100, 25).long()]
    own = (own - own.mean()) / own.std() * quantiles.numpy().std()  # deviation of the model's
    found = calibrated(labels, logits.softmax(-1), 0.5 + shift + stretch * own)
    (values,) = np.asarray(found.similarity["vote"])
    factor = stretch ** (25 / (25 + SHRINKAGE)) * (1 + MARGIN / 25) ** 0.5
    expected = 0.7 + shift + factor * (np.linspace(0, 1, 101) - 0.5)
    np.testing.assert_allclose(values, expected, atol=1e-9)
    assert found.threshold("vote", 5, 0.95) == pytest.approx(expected[5])


def test_weights_are_the_models_at_the_shots_of_the_fit() -> None:
    labels, logits = drawn(25, 2.0)
    found = calibrated(labels, logits.softmax(-1), torch.rand(25))
    assert found.shots == (5,) and found.weights(5) == {"pre": 0.5, "meta": 0.5}


def test_a_fit_has_it_and_its_model_does_not_change() -> None:
    experiment, trained = untrained()
    images: Any = experiment.problem.benchmarks["blobs"]  # type: ignore[attr-defined]
    before = trained.calibration.as_json()
    learner = FewShotClassifier(trained, accept_rate=0.9).fit(images.images, images.labels)
    assert trained.calibration.as_json() == before
    assert learner.calibration_.temperature("vote", 5) == learner.predictor_.temperature != 1
    shots = len(images.labels) / len(images.classes)
    assert learner.calibration_.shots == (shots,)
    assert learner.threshold_ == learner.calibration_.threshold("vote", shots, 0.9)
