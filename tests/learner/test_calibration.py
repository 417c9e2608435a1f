"""Temperatures, calibration errors and thresholds against values that are known."""

import json

import numpy as np
import pytest
import torch

from benchmarks.calibration import calibration_error
from omnitraining.evaluation import Inference
from omnitraining.learner import checks
from omnitraining.learner.calibration import (
    Calibration,
    calibrate,
    cosine_similarities,
    fit_temperature,
    head_weights,
)
from omnitraining.learner.predictor import tempered
from omnitraining.tasks.classification.episodes import TaskIndices
from omnitraining.tasks.classification.problem import Classification
from tests.learner.models import untrained


def test_the_temperature_that_was_put_in_is_found() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 4, generator=random, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=random)[:, 0]
    for temperature in (0.2, 1.0, 3.0):
        stated = (logits * temperature).softmax(-1)  # overconfident where it is above 1
        found = fit_temperature(stated, labels)
        assert found == pytest.approx(temperature, rel=0.05)
        torch.testing.assert_close(
            tempered(stated, temperature), logits.softmax(-1), atol=1e-6, rtol=0
        )
        assert calibration_error(tempered(stated, found), labels) < 0.015


def test_the_temperature_has_the_least_cross_entropy() -> None:
    logits = torch.randn(500, 3)
    labels = (logits + torch.randn(500, 3)).argmax(-1)
    best = fit_temperature(logits.softmax(-1), labels)

    def entropy(temperature: float) -> float:
        return torch.nn.functional.cross_entropy(logits / temperature, labels).item()

    assert entropy(best) <= min(entropy(best * factor) for factor in (0.9, 0.99, 1.01, 1.1))


def test_the_calibration_error_of_a_hand_counted_example() -> None:
    # Confidence 0.9 twice, right once: gap 0.4. Confidence 0.6 twice, right twice: gap 0.4.
    rows = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert calibration_error(rows, torch.tensor([0, 1, 1, 1])) == pytest.approx(0.4)
    assert calibration_error(torch.eye(3), torch.arange(3)) == 0


def test_values_between_measured_shots_are_interpolated_by_their_logarithm() -> None:
    made = Calibration(
        (1, 4),
        {"pre": [0.0, 1.0], "meta": [1.0, 0.0]},
        {"vote": [1.0, 3.0]},
        {"vote": [np.linspace(0, 1, 101).tolist(), np.linspace(0, 0.5, 101).tolist()]},
    )
    assert made.temperature("vote", 2) == pytest.approx(2)  # half-way from log 1 to log 4
    assert made.temperature("vote", 0.5) == 1 and made.temperature("vote", 100) == 3
    assert made.weights(2) == pytest.approx({"pre": 0.5, "meta": 0.5})
    assert made.weights(1) == {"meta": 1.0}
    assert made.threshold("vote", 1, 0.95) == pytest.approx(0.05)
    assert made.threshold("vote", 4, 0.8) == pytest.approx(0.1)


def test_cosines_are_of_queries_and_class_means() -> None:
    features = torch.randn(20, 5)
    support, query = torch.arange(6).view(1, 3, 2), torch.arange(6, 12).view(1, 3, 2)
    found = cosine_similarities(features, TaskIndices(support, query))
    for q in range(6):
        for n in range(3):
            mean = features[2 * n : 2 * n + 2].mean(0)
            expected = torch.cosine_similarity(features[6 + q], mean, 0)
            torch.testing.assert_close(found[0, q, n], expected)


def test_every_head_of_a_model_is_calibrated() -> None:
    _, trained = untrained(measured=True, inference={"flows": ["pre", "meta"]})
    heads = {"pre", "joint", "meta", "ensemble", "vote"}
    found = trained.calibration
    assert found.shots == (1, 2, 5)  # twelve images of a class, three of them queries
    assert found.temperatures.keys() == found.similarity.keys() == heads
    assert {len(values) for values in found.temperatures.values()} == {3}
    values = json.loads(json.dumps(found.as_json()))
    assert checks.calibration(values, trained.model.trained_flows) == found
    weights = head_weights(trained.model, {"pre": 0.3, "meta": 0.7})
    assert weights["vote"] == {"pre": 0.3, "meta": 0.7} and weights["joint"] == {"joint": 1.0}
    assert sum(weights["ensemble"].values()) == pytest.approx(1)


def test_ensemble_weights_are_the_best_on_validation_tasks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three flows one is always right, one always wrong, and one undecided."""
    experiment, trained = untrained()
    problem = experiment.problem
    assert isinstance(problem, Classification)
    labels = torch.arange(5).repeat(4, 2)
    correct = torch.nn.functional.one_hot(labels, 5).float()
    flows = {"pre": torch.full_like(correct, 0.2), "joint": correct, "meta": correct.roll(1, -1)}
    tasks = problem.fixed_tasks(problem.validation, 2, 1, 4)
    monkeypatch.setattr(Classification, "probabilities", lambda *_: (flows, labels, tasks))
    best = calibrate(problem, trained.model, Inference(ensemble_weights="validation"))
    equal = calibrate(problem, trained.model, Inference())
    for shots in best.shots:
        # Of the weights that are right everywhere, those are taken that are nearest to equal ones.
        assert best.weights(shots) == pytest.approx({"pre": 0.3, "joint": 0.4, "meta": 0.3})
        assert equal.weights(shots) == pytest.approx(dict.fromkeys(flows, 1 / 3))
    assert problem.protocol.test_shots == (1, 2), "calibration leaves the problem as it is"


@pytest.mark.slow
def test_similarity_is_absent_where_features_change() -> None:
    _, trained = untrained(
        measured=True,
        metatraining={"class_path": "MAML"},
        inference={"joint_head": "meta"},
        problem={"init_args": {"protocol": {"test_ways": 3}}},
    )
    assert trained.calibration.similarity.keys() == {"pre"}
    assert trained.calibration.temperatures.keys() == {"pre", "joint", "meta", "ensemble", "vote"}
