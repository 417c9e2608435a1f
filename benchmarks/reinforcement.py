"""Policies: simulation in a closed loop, and the meta-gradient of many tasks at once.

``python -m benchmarks.reinforcement FILE`` measures these alone and puts them into a record.
"""

import os
import sys
import time
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.timing import Row, put, ratio
from omnitraining.adaptation.batched import expand_weights
from omnitraining.backbones import MLP
from omnitraining.batches import Episode
from omnitraining.metatraining import MAML
from omnitraining.model import build_model
from omnitraining.network import Network
from omnitraining.policies.gaussian import GaussianHead
from omnitraining.pretraining import REINFORCE
from omnitraining.tasks.reinforcement.environment import Environment
from omnitraining.tasks.reinforcement.half_cheetah import FRAME_SKIP, HalfCheetahVelocity, Physics
from omnitraining.tasks.reinforcement.navigation import Navigation
from omnitraining.tasks.reinforcement.policies import per_task_policy
from omnitraining.tasks.reinforcement.problem import Reinforcement
from omnitraining.tasks.reinforcement.trajectories import Trajectories, rollout

TASKS, TRAJECTORIES = 40, 20
CPU = time.process_time


def reinforcement() -> list[Row]:
    """Everything here; process CPU time, unless a case states otherwise."""
    torch.manual_seed(0)
    return [*cheetah(), *iteration(), *navigation(), *meta_gradient()]


def _network(states: int, actions: int) -> Network:
    return Network(MLP(states), GaussianHead(64, actions))


def _closed_loop(env: Environment, tasks: int) -> Trajectories:
    random = torch.Generator().manual_seed(0)
    network = _network(env.state_dim, env.action_dim)
    policy = per_task_policy(network, expand_weights(network, tasks))
    return rollout(env, env.sample_tasks(tasks, random), policy, TRAJECTORIES, random)


def cheetah(steps: int = 50) -> list[Row]:
    """A policy per task in the loop, against the physics alone and against Gymnasium's vectors."""
    env = HalfCheetahVelocity(horizon=steps)
    closed = partial(_closed_loop, env, TASKS)
    actions = closed().actions.flatten(0, 1).clamp(-1, 1).double().numpy()
    controls = np.repeat(actions, FRAME_SKIP, axis=1)
    still = np.zeros((len(controls), len(env.physics.rest)))

    def physics_alone() -> None:
        env.physics.reset(env.physics.rest + still, still)
        control = import_module("mujoco").mjtState.mjSTATE_CTRL
        env.physics._batch.rollout(FRAME_SKIP * steps, controls, int(control))

    value, raw, ours = ratio(physics_alone, closed, rounds=5, clock=CPU)
    count = TASKS * TRAJECTORIES
    return [
        (
            "closed loop / physics alone",
            f"HalfCheetah, {count} copies, steps per CPU-second",
            value,
            ">= 0.9",
            _ms(ours, raw),
        ),
        *gymnasium(),
    ]


def iteration(steps: int = 200) -> list[Row]:
    """A training step of full size, with adaptation and update, against the physics within it."""
    rows: list[Row] = []
    for method, name in (("meta-training", "MAML"), ("omni-training", "Omni-Training")):
        environment = HalfCheetahVelocity(horizon=steps)
        problem = Reinforcement(environment, TASKS, TRAJECTORIES)
        maml = MAML(task="reinforcement", lr=0.1)
        model = build_model(method, lambda: MLP(17), problem, REINFORCE(), maml)
        optimizer, physics = (
            torch.optim.Adam(model.parameters(), 0.01),
            Clocked(environment.physics),
        )
        environment.physics = physics
        start = CPU()
        drawn = problem.samples(0, torch.Generator().manual_seed(0), model)
        model(drawn.batch, drawn.episode, joint=drawn.joint)["total"].backward()
        optimizer.step()
        whole = CPU() - start
        case = f"HalfCheetah, {name}, {TASKS} x {TRAJECTORIES} x {steps}, CPU-seconds"
        times = _ms(whole, physics.seconds)
        rows.append(("iteration / its physics", case, whole / physics.seconds, "<= 1.5", times))
    return rows


class Clocked:
    """Physics that counts the CPU-seconds of its steps."""

    def __init__(self, physics: Physics) -> None:
        """Start at 0."""
        self._physics, self.seconds = physics, 0.0

    def __getattr__(self, name: str) -> Any:
        """Everything else is that of the physics."""
        return getattr(self._physics, name)

    def step(self, controls: Any) -> Any:
        """A step of the physics."""
        start = CPU()
        result = self._physics.step(controls)
        self.seconds += CPU() - start
        return result


def gymnasium(steps: int = 10, tasks: int = 5) -> list[Row]:
    """The loop against Gymnasium's vectors: per CPU-second, and as a user has it, on all cores."""
    count, cores, threads = tasks * TRAJECTORIES, os.cpu_count() or 1, torch.get_num_threads()
    vector = _sync_vector(count)
    moves = np.clip(np.random.default_rng(0).normal(size=(steps, count, 6)), -1, 1)

    def theirs() -> None:
        vector.reset(seed=0)
        for action in moves:
            vector.step(action.astype(np.float32))

    rows: list[Row] = []
    for used, clock, unit in (
        (threads, CPU, "CPU-second"),
        (cores, time.perf_counter, f"second, {cores} cores"),
    ):
        torch.set_num_threads(used)
        ours = partial(_closed_loop, HalfCheetahVelocity(horizon=steps), tasks)
        value, a, b = ratio(theirs, ours, 15, clock)
        case = f"HalfCheetah, {count} copies, steps per {unit}"
        rows.append(("closed loop / Gymnasium's SyncVectorEnv", case, value, ">= 2", _ms(b, a)))
    torch.set_num_threads(threads)
    return rows


def _sync_vector(copies: int) -> Any:
    """Gymnasium's own HalfCheetah-v5, without the packages that it imports for rendering only."""
    for name in ("glfw", "imageio"):
        sys.modules.setdefault(name, ModuleType(name))
    from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
    from gymnasium.vector import SyncVectorEnv

    # Its description has a deprecated attribute, of which every copy would warn.
    import_module("mujoco").set_mju_user_warning(lambda message: None)
    return SyncVectorEnv([HalfCheetahEnv] * copies)


def navigation() -> list[Row]:
    """Million steps per CPU-second, and the share of the policies' own networks in their time."""
    env, network = Navigation(), _network(2, 2)
    count = TASKS * TRAJECTORIES * env.horizon
    policy = per_task_policy(network, expand_weights(network, TASKS))
    states = torch.randn(TASKS, TRAJECTORIES, 2)

    @torch.no_grad()
    def networks_alone() -> None:
        for _ in range(env.horizon):
            policy(states)

    closed = partial(_closed_loop, env, TASKS)
    share, alone, whole = ratio(networks_alone, closed, rounds=25, clock=CPU)
    case = f"navigation, {TASKS} x {TRAJECTORIES} x {env.horizon}"
    return [
        ("million steps per CPU-second", case, count / whole / 1e6, ">= 3", _ms(whole, alone)),
        ("networks alone / closed loop", case, share, "", _ms(alone, whole)),
    ]


def meta_gradient() -> list[Row]:
    """A second-order MAML update of policies: a loop over tasks against all at once."""
    rows: list[Row] = []
    network, algorithm = _network(2, 2), REINFORCE(lr=0.1)
    for trajectories, horizon, rounds, goal in ((20, 100, 7, ">= 3"), (2, 10, 7, ">= 10")):
        shape = 20, trajectories * horizon
        sets = [torch.randn(*shape, 2), torch.randn(*shape, 4)] * 2
        episode = Episode(*sets)

        def batched(episode: Episode = episode) -> None:
            network.zero_grad()
            algorithm.loss(algorithm.predict(network, episode), episode.query_y).backward()

        def loop(episode: Episode = episode) -> None:
            for task in range(len(episode.support_x)):
                batched(episode[task : task + 1])

        value, a, b = ratio(loop, batched, rounds, CPU)
        case = f"policies, 20 tasks x {trajectories} x {horizon} steps"
        rows.append(("MAML update, loop / batched", case, value, goal, _ms(a, b)))
    return rows


def _ms(first: float, second: float) -> str:
    return f"{first * 1e3:.3g} / {second * 1e3:.3g}"


if __name__ == "__main__":
    put(reinforcement())
