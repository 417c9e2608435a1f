"""From rewards to advantages, against loops that are written as the definitions read."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from omnitraining.tasks.reinforcement.returns import (
    baseline_features,
    discounted_sums,
    generalized_advantages,
    linear_baseline,
    normalize_advantages,
)

pytestmark = pytest.mark.usefixtures("float64")


def until(lengths: list[list[int]], horizon: int) -> Tensor:
    """Masks [T, M, H] of trajectories of given lengths."""
    return torch.arange(horizon) < torch.tensor(lengths).unsqueeze(-1)


@pytest.mark.parametrize("discount", [0.0, 0.9, 0.99, 1.0])
def test_discounted_sums_equal_a_backward_loop(discount: float) -> None:
    values = torch.randn(3, 2, 7)
    expected, running = torch.empty_like(values), torch.zeros(3, 2)
    for t in reversed(range(7)):
        running = values[..., t] + discount * running
        expected[..., t] = running
    torch.testing.assert_close(discounted_sums(values, discount), expected)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.95, 1.0])
def test_gae_is_that_of_a_backward_loop(gae_lambda: float) -> None:
    valid = until([[5, 3], [1, 5]], 5)
    rewards, values = torch.randn(2, 2, 5) * valid, torch.randn(2, 2, 5) * valid
    found = generalized_advantages(rewards, values, 0.9, gae_lambda)
    for task in range(2):
        for m in range(2):
            running, after = 0.0, 0.0
            for t in reversed(range(int(valid[task, m].sum()))):
                r, v = rewards[task, m, t].item(), values[task, m, t].item()
                running = r + 0.9 * after - v + 0.9 * gae_lambda * running
                after = v
                assert found[task, m, t].item() == pytest.approx(running, rel=1e-10)
    assert (found[~valid] == 0).all()


def test_with_lambda_1_an_advantage_is_the_return_minus_the_value() -> None:
    rewards, values = torch.randn(2, 3, 6), torch.randn(2, 3, 6)
    expected = discounted_sums(rewards, 0.97) - values
    torch.testing.assert_close(generalized_advantages(rewards, values, 0.97, 1.0), expected)


def test_features_are_states_their_squares_and_powers_of_time() -> None:
    states = torch.tensor([[[0.5, -20.0], [2.0, 3.0]]])
    expected = torch.tensor(
        [[[0.5, -10, 0.25, 100, 0, 0, 0, 1], [2, 3, 4, 9, 0.01, 1e-4, 1e-6, 1]]]
    )
    torch.testing.assert_close(baseline_features(states), expected)


@pytest.mark.parametrize("lengths", [[[9, 9, 9], [9, 9, 9]], [[9, 4, 1], [2, 9, 7]]])
def test_the_baseline_is_ridge_regression_task_by_task(lengths: list[list[int]]) -> None:
    valid = until(lengths, 9)
    states, returns = torch.randn(2, 3, 9, 2) * valid.unsqueeze(-1), torch.randn(2, 3, 9)
    found = linear_baseline(states, returns, valid, ridge=0.1)
    for task in range(2):
        took_place = valid[task].flatten()
        x = baseline_features(states[task]).flatten(0, 1)[took_place]
        y = returns[task].flatten()[took_place]
        peer = Ridge(alpha=0.1, fit_intercept=False, solver="cholesky").fit(x.numpy(), y.numpy())
        np.testing.assert_allclose(found[task].flatten()[took_place], peer.predict(x), rtol=1e-6)
        # The same as least squares with a row sqrt(0.1) e_i for each coefficient.
        rows = torch.cat([x, 0.1**0.5 * torch.eye(8)])
        solution = torch.linalg.lstsq(rows, torch.cat([y, torch.zeros(8)]).unsqueeze(-1)).solution
        torch.testing.assert_close(
            found[task].flatten()[took_place], (x @ solution).squeeze(-1), rtol=1e-6, atol=1e-8
        )
    assert (found[~valid] == 0).all()


def test_a_baseline_that_can_explain_everything_leaves_no_advantage() -> None:
    states = torch.randn(1, 4, 6, 3)
    weights = torch.randn(10)
    returns = baseline_features(states) @ weights
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    torch.testing.assert_close(
        linear_baseline(states, returns, valid), returns, rtol=1e-3, atol=1e-3
    )


def test_advantages_are_normalized_over_the_steps_of_a_task_that_took_place() -> None:
    valid = until([[5, 2], [3, 1]], 5)
    advantages = torch.randn(2, 2, 5)
    found = normalize_advantages(advantages, valid)
    assert (found[~valid] == 0).all()
    for task in range(2):
        own = advantages[task][valid[task]]
        expected = (own - own.mean()) / own.std(correction=0)
        share = valid[task].sum() / 10
        torch.testing.assert_close(found[task][valid[task]] * share, expected, rtol=1e-6, atol=0)
        # A mean over all steps is the mean over those that took place.
        weights = torch.randn(2, 5)
        torch.testing.assert_close(
            (found[task] * weights).mean(), (expected * weights[valid[task]]).mean(), rtol=1e-6,
            atol=1e-9,
        )  # fmt: skip


def test_equal_advantages_are_zero() -> None:
    valid = torch.ones(1, 2, 3, dtype=torch.bool)
    assert (normalize_advantages(torch.ones(1, 2, 3), valid) == 0).all()
