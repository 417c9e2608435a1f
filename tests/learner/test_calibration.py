"""Temperatures, calibration errors and thresholds against values that are known."""

import numpy as np
import pytest
import torch

from omnitraining.learner.calibration import (
    Calibration,
    calibration_error,
    cosines,
    fit_temperature,
    head_weights,
)
from omnitraining.learner.predictor import tempered
from omnitraining.tasks.classification.episodes import TaskIndices
from tests.learner.models import untrained


def test_the_temperature_that_was_put_in_is_found() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 4, generator=random, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=random)[:, 0]
    for temperature in (0.2, 1.0, 3.0):
        stated = (logits * temperature).softmax(-1)  # too sure where it is above 1
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
    assert made.vote(2) == pytest.approx({"pre": 0.5, "meta": 0.5})
    assert made.vote(1) == {"meta": 1.0}
    assert made.threshold("vote", 1, 0.95) == pytest.approx(0.05)
    assert made.threshold("vote", 4, 0.8) == pytest.approx(0.1)


def test_cosines_are_those_of_queries_and_class_means() -> None:
    features = torch.randn(20, 5)
    support, query = torch.arange(6).view(1, 3, 2), torch.arange(6, 12).view(1, 3, 2)
    found = cosines(features, TaskIndices(support, query))
    for q in range(6):
        for n in range(3):
            mean = features[2 * n : 2 * n + 2].mean(0)
            expected = torch.cosine_similarity(features[6 + q], mean, 0)
            torch.testing.assert_close(found[0, q, n], expected)


def test_every_head_of_a_model_is_calibrated() -> None:
    experiment, trained = untrained(measured=True, inference={"flows": ["pre", "meta"]})
    heads = {"pre", "joint", "meta", "ensemble", "vote"}
    found = trained.calibration
    assert found.shots == (1, 2, 5)  # twelve images of a class, three of them queries
    assert found.temperatures.keys() == found.familiarity.keys() == heads
    assert {len(values) for values in found.temperatures.values()} == {3}
    assert Calibration.from_json(found.as_json()) == found
    weights = head_weights(trained.model, {"pre": 0.3, "meta": 0.7})
    assert weights["vote"] == {"pre": 0.3, "meta": 0.7} and weights["joint"] == {"joint": 1.0}
    assert sum(weights["ensemble"].values()) == pytest.approx(1)
    asked = experiment.problem.protocol.test_shots  # type: ignore[attr-defined]
    assert asked == (1, 2), "measuring leaves the problem as it was"


def test_a_vote_can_be_chosen_on_validation_tasks() -> None:
    _, trained = untrained(measured=True, inference={"ensemble_weights": "validation"})
    votes = np.array(list(trained.calibration.votes.values()))
    np.testing.assert_allclose(votes.sum(0), 1)


@pytest.mark.slow
def test_familiarity_is_absent_where_features_change() -> None:
    _, trained = untrained(
        measured=True,
        metatraining={"class_path": "MAML"},
        problem={"init_args": {"protocol": {"test_ways": 3}}},
    )
    assert trained.calibration.familiarity.keys() == {"pre"}
    assert trained.calibration.temperatures.keys() == {"pre", "joint", "meta", "ensemble", "vote"}
