"""Rollouts: trajectories of all tasks, simulated together."""

from dataclasses import dataclass

import torch
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.policies.gaussian import PolicyTargets, log_prob
from omnitraining.tasks.reinforcement.environment import Environment
from omnitraining.tasks.reinforcement.policies import Policy
from omnitraining.tasks.reinforcement.returns import (
    discounted_sums,
    generalized_advantages,
    linear_baseline,
    normalize_advantages,
)


class DivergedError(InputError):
    """A policy returned an action that is not finite."""


@dataclass(frozen=True)
class Trajectories:
    """M trajectories of H steps in each of T tasks.

    Attributes:
        states: [T, M, H, S].
        actions: taken in these states [T, M, H, A].
        rewards: of these actions [T, M, H].
        valid: steps before the end [T, M, H]; after it, everything else is 0.
        log_probs: of the actions under the policy that took them [T, M, H].
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    valid: Tensor
    log_probs: Tensor

    def returns(self) -> Tensor:
        """Mean undiscounted return of each task [T]."""
        return self.rewards.sum(-1).mean(-1)

    def samples(self, discount: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a policy update.

        Args:
            discount: gamma of returns.
            gae_lambda: lambda of GAE.

        Returns:
            States [T, M * H, S] and packed `PolicyTargets` [T, M * H, A + 2].
        """
        returns = discounted_sums(self.rewards, discount)
        values = linear_baseline(self.states, returns, self.valid)
        advantages = generalized_advantages(self.rewards, values, discount, gae_lambda)
        advantages = normalize_advantages(advantages, self.valid)
        targets = PolicyTargets(self.actions, advantages, self.log_probs).pack()
        return self.states.flatten(1, 2), targets.flatten(1, 2)


@torch.no_grad()
def rollout(
    environment: Environment,
    tasks: Tensor,
    policy: Policy,
    trajectories: int,
    random: torch.Generator,
) -> Trajectories:
    """Trajectories of a policy in T tasks, all simulated together.

    Args:
        environment: that is simulated.
        tasks: T tasks [T, ...], on the device to compute on.
        policy: of states [T, M, S].
        trajectories: M, per task.
        random: source of initial states and actions, on the CPU.

    Raises:
        DivergedError: an action is not finite.
        InputError: a state or reward is not finite, or has a wrong shape.
    """
    count, horizon = len(tasks) * trajectories, environment.horizon
    device, seed = tasks.device, torch.randint(2**62, (), generator=random).item()
    noise = torch.randn(
        horizon,
        count,
        environment.action_dim,
        generator=torch.Generator(device).manual_seed(int(seed)),
        device=device,
    )
    state = environment.reset(tasks.repeat_interleave(trajectories, 0), random)
    states = torch.empty(horizon, count, environment.state_dim, device=device)
    rewards = torch.empty(horizon, count, device=device)
    ends = torch.zeros(horizon, count, dtype=torch.bool, device=device)
    outputs = torch.empty(horizon, count, 2 * environment.action_dim, device=device)
    actions = torch.empty_like(noise)
    _check_shapes(environment, state, rewards[0], ends[0], count)
    for t in range(horizon):
        states[t] = state
        outputs[t] = policy(state.unflatten(0, (len(tasks), trajectories))).flatten(0, 1)
        # Of whole rows, though half is not needed: exp of a part of each row is much slower.
        (mean, _), (_, std) = outputs[t].chunk(2, -1), outputs[t].exp().chunk(2, -1)
        torch.addcmul(mean, noise[t], std, out=actions[t])
        state, reward, end = environment.step(actions[t])
        if t == 0:
            _check_shapes(environment, state, reward, end, count)
        rewards[t], ends[t] = reward, end
    valid = torch.ones_like(ends)
    valid[1:] = ends[:-1].cumsum(0) == 0
    _check_finite(environment, states, actions, rewards, valid, trajectories)
    parts = (
        torch.where(valid.unsqueeze(-1), states, 0.0),
        torch.where(valid.unsqueeze(-1), actions, 0.0),
        torch.where(valid, rewards, 0.0),
        valid,
        torch.where(valid, log_prob(outputs, actions), 0.0),
    )
    return Trajectories(*(_by_task(part, len(tasks)) for part in parts))


def _by_task(steps: Tensor, tasks: int) -> Tensor:
    """[H, T * M, ...] as [T, M, H, ...]."""
    by_task: Tensor = steps.transpose(0, 1).unflatten(0, (tasks, -1)).contiguous()
    return by_task


def _check_shapes(
    environment: Environment, states: Tensor, rewards: Tensor, ends: Tensor, count: int
) -> None:
    shapes = [list(part.shape) for part in (states, rewards, ends)]
    expected = [[count, environment.state_dim], [count], [count]]
    if shapes != expected:
        raise InputError(
            f"{type(environment).__name__} returned states, rewards and ends of shapes {shapes} "
            f"for {count} copies: they must be {expected}"
        )


def _check_finite(
    environment: Environment,
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    valid: Tensor,
    trajectories: int,
) -> None:
    finite_states = states.isfinite().all(-1)
    diverged = ": the policy diverged; lower training.lr, or the lr of the algorithms"
    for quantity, bad, error, advice in (
        ("an action", ~actions.isfinite().all(-1) & finite_states & valid, DivergedError, diverged),
        ("a state", ~finite_states & valid, InputError, ""),
        ("a reward", ~rewards.isfinite() & valid, InputError, ""),
    ):
        if bad.any():
            step, copy = (int(i) for i in bad.nonzero()[0])
            raise error(
                f"{environment.name}: {quantity} of task {copy // trajectories} (counted from 0) "
                f"is not finite at step {step}{advice}"
            )
