"""Rollouts: trajectories of all tasks, simulated together."""

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.policies.gaussian import PolicyTargets
from omnitraining.tasks.reinforcement.environment import (
    Environment,
    StateRewards,
    as_state_rewards,
)
from omnitraining.tasks.reinforcement.policies import Policy
from omnitraining.tasks.reinforcement.returns import (
    discounted_sums,
    generalized_advantages,
    linear_baseline,
    normalize_advantages,
)
from omnitraining.threads import cpu_threads


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
    threads: int = 1,
) -> Trajectories:
    """Trajectories of a policy in T tasks, all simulated together.

    Args:
        environment: that is simulated.
        tasks: T tasks [T, ...], on the device to compute on.
        policy: of states [T, M, S].
        trajectories: M, per task.
        random: source of initial states and actions, on the CPU.
        threads: of torch, while the policy acts. For small networks waiting for other threads
            takes longer than computing; an environment may start its own at its reset.

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
    states = torch.empty(horizon + 1, count, environment.state_dim, device=device)
    rewards = torch.empty(horizon, count, device=device)
    ends = torch.zeros(horizon, count, dtype=torch.bool, device=device)
    outputs = torch.empty(horizon, count, 2 * environment.action_dim, device=device)
    actions = torch.empty_like(noise)
    state = environment.reset(tasks.repeat_interleave(trajectories, 0), random)
    _check_shapes(environment, state, rewards[0], ends[0], count)
    states[0] = state
    later = as_state_rewards(environment)
    # All views are made at once: in a small environment they would take as long as the networks.
    inputs, deviations = states.unflatten(1, (len(tasks), -1)), torch.empty_like(outputs[0])
    mean, std = outputs.chunk(2, -1)[0], deviations.chunk(2, -1)[1]
    views = (part.unbind() for part in (inputs, outputs, mean, noise, actions))
    with cpu_threads(threads):
        for t, (seen, output, center, shock, action) in enumerate(zip(*views, strict=False)):
            output.copy_(policy(seen).flatten(0, 1))
            # Of whole rows, though half is not needed: exp of a part of each row is much slower.
            torch.exp(output, out=deviations)
            torch.addcmul(center, shock, std, out=action)
            if later is not None and t > 0:
                states[t + 1] = later.move(action)
                continue
            state, reward, end = environment.step(action)
            if t == 0:
                _check_shapes(environment, state, reward, end, count)
            states[t + 1], rewards[t], ends[t] = state, reward, end
        if later is not None:
            rewards, ends = later.outcomes(states[1:])
            _check_outcomes(later, rewards, ends, states[1:])
    states = states[:-1]
    valid = torch.ones_like(ends)
    valid[1:] = ends[:-1].cumsum(0) == 0
    _check_finite(environment, states, actions, rewards, valid, trajectories)
    parts = states, actions, rewards, valid, _log_probs(outputs, noise)
    return Trajectories(*(_by_task(part, valid, len(tasks)) for part in parts))


def _log_probs(outputs: Tensor, noise: Tensor) -> Tensor:
    """`log_prob` [H, N] of the actions mean + noise * deviation.

    Args:
        outputs: of the policy [H, N, 2 A].
        noise: standard normal [H, N, A].
    """
    log_stds = outputs.chunk(2, -1)[1]
    constant = 0.5 * math.log(2 * math.pi) * noise.shape[-1]
    # Component by component: torch reduces over a dimension as small at a fraction of this speed.
    terms = [*noise.square().mul_(0.5).unbind(-1), *log_stds.unbind(-1)]
    total: Tensor = reduce(Tensor.add_, terms[1:], terms[0] + constant)
    return total.neg_()


def _by_task(steps: Tensor, valid: Tensor, tasks: int) -> Tensor:
    """[H, T * M, ...] as [T, M, H, ...], 0 where it is not valid [H, T * M]."""
    found = steps.new_empty(*reversed(valid.shape), *steps.shape[2:])
    columns = (part.reshape(*part.shape[:2], -1).unbind(-1) for part in (steps, found))
    for source, target in zip(*columns, strict=True):
        torch.where(valid, source, steps.new_zeros(()), out=target.mT)
    by_task: Tensor = found.unflatten(0, (tasks, -1))
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


def _check_outcomes(
    environment: StateRewards, rewards: Tensor, ends: Tensor, states: Tensor
) -> None:
    shapes = [list(part.shape) for part in (rewards, ends)]
    expected = [list(states.shape[:-1])] * 2
    if shapes != expected:
        raise InputError(
            f"{type(environment).__name__}.outcomes returned rewards and ends of shapes {shapes} "
            f"for states of shape {list(states.shape)}: they must be {expected}"
        )


def _check_finite(
    environment: Environment,
    states: Tensor,
    actions: Tensor,
    rewards: Tensor,
    valid: Tensor,
    trajectories: int,
) -> None:
    if all(part.sum().isfinite() for part in (states, actions, rewards)):
        return
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
