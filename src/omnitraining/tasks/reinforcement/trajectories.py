"""Acting: many tasks, many trajectories, one batch per step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.policies.gaussian import log_probability, policy_targets
from omnitraining.tasks.reinforcement.environment import Environment
from omnitraining.tasks.reinforcement.returns import (
    discounted_sums,
    generalized_advantages,
    linear_baseline,
    standardized,
)


class DivergedError(InputError):
    """A policy put out an action that is not finite."""


Policy = Callable[[Tensor], Tensor]
"""From states [T, M, S] to means and log standard deviations [T, M, 2 A]."""


@dataclass(frozen=True)
class Trajectories:
    """M trajectories of H steps in each of T tasks.

    Attributes:
        states: where the policy was [T, M, H, S].
        actions: what it did there [T, M, H, A].
        rewards: what it got for it [T, M, H].
        valid: steps before the end [T, M, H]; after it, everything else is 0.
        log_probabilities: of the actions under the policy that acted [T, M, H].
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    valid: Tensor
    log_probabilities: Tensor

    def returns(self) -> Tensor:
        """Mean sum of rewards of each task [T], not discounted."""
        return self.rewards.sum(-1).mean(-1)

    def samples(self, discount: float, trace: float) -> tuple[Tensor, Tensor]:
        """What a policy learns from: states [T, M * H, S] and `policy_targets` [T, M * H, A + 2].

        Args:
            discount: gamma of returns.
            trace: lambda of GAE.
        """
        returns = discounted_sums(self.rewards, discount)
        values = linear_baseline(self.states, returns, self.valid)
        advantages = generalized_advantages(self.rewards, values, discount, trace)
        advantages = standardized(advantages, self.valid)
        targets = policy_targets(self.actions, advantages, self.log_probabilities)
        return self.states.flatten(1, 2), targets.flatten(1, 2)


@torch.no_grad()
def rollout(
    environment: Environment,
    tasks: Tensor,
    policy: Policy,
    trajectories: int,
    random: torch.Generator,
) -> Trajectories:
    """Let a policy act in T tasks, all trajectories at once.

    Args:
        environment: the world.
        tasks: T tasks [T, ...], on the device to compute on.
        policy: of states [T, M, S].
        trajectories: M, per task.
        random: source of starts and actions, on the CPU.

    Raises:
        DivergedError: an action is not finite.
        InputError: a state or reward is not finite, or has a wrong shape.
    """
    count, horizon = len(tasks) * trajectories, environment.horizon
    device, seed = tasks.device, torch.randint(2**62, (), generator=random).item()
    noise = torch.randn(
        horizon,
        count,
        environment.actions,
        generator=torch.Generator(device).manual_seed(int(seed)),
        device=device,
    )
    state = environment.reset(tasks.repeat_interleave(trajectories, 0), random)
    states = torch.empty(horizon, count, environment.states, device=device)
    rewards = torch.empty(horizon, count, device=device)
    ends = torch.zeros(horizon, count, dtype=torch.bool, device=device)
    outputs = torch.empty(horizon, count, 2 * environment.actions, device=device)
    actions = torch.empty_like(noise)
    _check_shapes(environment, state, rewards[0], ends[0], count)
    for t in range(horizon):
        states[t] = state
        outputs[t] = policy(state.unflatten(0, (len(tasks), trajectories))).flatten(0, 1)
        # Whole rows, half of no use: exponentials of parts of rows are computed one by one.
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
        torch.where(valid, log_probability(outputs, actions), 0.0),
    )
    return Trajectories(*(_by_task(part, len(tasks)) for part in parts))


def _by_task(steps: Tensor, tasks: int) -> Tensor:
    """[H, T * M, ...] as [T, M, H, ...]."""
    by_task: Tensor = steps.transpose(0, 1).unflatten(0, (tasks, -1)).contiguous()
    return by_task


def _check_shapes(
    environment: Environment, states: Tensor, rewards: Tensor, ends: Tensor, count: int
) -> None:
    found = [list(part.shape) for part in (states, rewards, ends)]
    wanted = [[count, environment.states], [count], [count]]
    if found != wanted:
        raise InputError(
            f"{type(environment).__name__} returned states, rewards and ends of shapes {found} "
            f"for {count} copies: they must be {wanted}"
        )


def _check_finite(
    environment: Environment,
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    valid: Tensor,
    trajectories: int,
) -> None:
    known = states.isfinite().all(-1)
    way_out = ": the policy diverged; lower training.lr, or the lr of the algorithms"
    for what, bad, error, why in (
        ("an action", ~actions.isfinite().all(-1) & known & valid, DivergedError, way_out),
        ("a state", ~known & valid, InputError, ""),
        ("a reward", ~rewards.isfinite() & valid, InputError, ""),
    ):
        if bad.any():
            step, copy = (int(i) for i in bad.nonzero()[0])
            raise error(
                f"{environment.name}: {what} of task {copy // trajectories} (counted from 0) is "
                f"not finite at step {step}{why}"
            )
