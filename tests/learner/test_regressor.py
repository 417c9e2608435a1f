"""A learner predicts curves as the evaluation predicts them."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone

import omnitraining
from omnitraining import FewShotRegressor, InputError, Sinusoids
from omnitraining.learner.curves import CurveWeights
from tests.learner.models import curves

VOTES = ["equal", "validation"]


@pytest.mark.parametrize("weights", VOTES)
def test_curves_equal_the_evaluation_s(weights: str, tmp_path: Path) -> None:
    experiment, trained = curves(inference={"ensemble_weights": weights})
    problem = experiment.problem
    assert isinstance(problem, Sinusoids)
    expected = problem.curves(trained.model, experiment.inference, 3, 5)
    x, y, query = (expected[name] for name in ("support_x", "support_y", "query_x"))
    for flow in ("pre", "joint", "meta"):
        learner = FewShotRegressor(trained, flow).fit(x, y)
        np.testing.assert_allclose(learner.predict(query), expected[flow][2], atol=1e-5)
        once = FewShotRegressor(trained, flow, steps=1).fit(x, y)
        np.testing.assert_allclose(once.predict(query), expected[flow][1], atol=1e-5)
    learner = FewShotRegressor(trained).fit(x.numpy(), y.tolist())
    found = learner.predict(query)
    np.testing.assert_allclose(found, expected["ensemble"][2], atol=1e-5)
    learner.save(tmp_path / "curve")
    loaded = omnitraining.load(tmp_path / "curve")
    assert isinstance(loaded, FewShotRegressor)
    assert np.array_equal(loaded.predict(query), found)
    assert np.array_equal(pickle.loads(pickle.dumps(learner)).predict(query), found)
    column = clone(learner).fit(x[:, None], y[:, None]).predict(query[:, None])
    assert np.array_equal(column, found[:, None])


def test_points_that_are_wrong_are_refused() -> None:
    _, trained = curves()
    learner = FewShotRegressor(trained)
    with pytest.raises(InputError, match="there are 3 inputs and 2 values: give one per input"):
        learner.fit([0, 1, 2], [0, 1])
    with pytest.raises(InputError, match="y holds values that are no numbers"):
        learner.fit([0.0, 1.0], [0.0, np.nan])
    with pytest.raises(InputError, match=r"x is float64 \[0\]: give numbers"):
        learner.fit([], [])
    with pytest.raises(InputError, match=r"x is float64 \[2, 2\]: give numbers"):
        learner.fit(np.zeros((2, 2)), [0, 1])
    with pytest.raises(InputError, match="steps is -1: it must be 0 or more"):
        FewShotRegressor(trained, steps=-1).fit([0.0], [0.0])
    with pytest.raises(InputError, match="flow is 'both': tiny has pre, joint, meta"):
        FewShotRegressor(trained, "both").fit([0.0], [0.0])


def test_the_nearest_measured_weights_are_used() -> None:
    weights = CurveWeights((5, 20), ("pre", "meta"), [[[1.0, 0.0]] * 3, [[0.0, 1.0]] * 3])
    assert weights.steps == 2
    assert weights.at(4, 1) == {"pre": 1.0, "meta": 0.0}
    assert weights.at(18, 99) == {"pre": 0.0, "meta": 1.0}


def test_networks_of_the_model_stay_as_they_are() -> None:
    _, trained = curves()
    before = [p.clone() for p in trained.model.parameters()]
    FewShotRegressor(trained).fit(torch.randn(5), torch.randn(5)).predict(torch.randn(3))
    assert all(torch.equal(a, b) for a, b in zip(before, trained.model.parameters(), strict=True))
