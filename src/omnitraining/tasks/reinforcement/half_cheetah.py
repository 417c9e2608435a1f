"""HalfCheetah with an unobserved target velocity or direction (paper 6.3).

The simulation is MuJoCo's own batch engine: bit for bit the dynamics of Gymnasium's
HalfCheetah-v5, at nearly the speed of the bare physics, without a process per copy.
"""

from abc import abstractmethod
from importlib import import_module, resources
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.tasks.reinforcement.environment import Environment

FRAME_SKIP = 5
SECONDS = 0.05
"""Time of one step: five of the physics, 0.01 seconds each."""


class HalfCheetah(Environment):
    """The body that its tasks share; no trajectory ends before its last step.

    States are those of HalfCheetah-v5, as are starts: positions uniform within 0.1 of rest,
    velocities normal with deviation 0.1. Actions are clipped to +-1.

    Args:
        control_cost: weight of the squared action in the reward. The paper names none; both code
            bases it builds on have 0.05, on the action after clipping.
        horizon: steps of a trajectory.
    """

    states, actions = 17, 6

    def __init__(self, control_cost: float = 0.05, horizon: int = 200) -> None:
        if control_cost < 0 or horizon < 1:
            raise InputError(
                f"environment.control_cost is {control_cost} and environment.horizon {horizon}: "
                "the first must be 0 or more, the second 1 or more"
            )
        self.control_cost, self.horizon = control_cost, horizon
        self.physics = Physics()

    def identity(self) -> str:
        return f"{super().identity()} control cost {self.control_cost}"

    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        self.tasks = tasks
        count, joints = len(tasks), len(self.physics.rest)
        positions = 0.2 * torch.rand(count, joints, generator=random, dtype=torch.float64) - 0.1
        velocities = 0.1 * torch.randn(count, joints, generator=random, dtype=torch.float64)
        states = self.physics.start(self.physics.rest + positions.numpy(), velocities.numpy())
        return self._tensor(states)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        actions = actions.clamp(-1, 1)
        states, speeds = self.physics.step(actions.double().cpu().numpy())
        cost = self.control_cost * actions.square().sum(-1)
        rewards = self.reward(self._tensor(speeds)) - cost
        return self._tensor(states), rewards, torch.zeros_like(rewards, dtype=torch.bool)

    @abstractmethod
    def reward(self, speeds: Tensor) -> Tensor:
        """Of forward speeds [N] in metres per second, for the tasks at hand, before costs [N]."""

    def _tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(values).to(self.tasks.device, torch.float32)


class HalfCheetahVelocity(HalfCheetah):
    """Run at a speed between 0 and 2 metres per second: reward -|v - task| - cost."""

    name = "cheetah-velocity"

    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Speeds [count]."""
        return 2 * torch.rand(count, generator=random)

    def reward(self, speeds: Tensor) -> Tensor:
        return -(speeds - self.tasks).abs()


class HalfCheetahDirection(HalfCheetah):
    """Run forwards or backwards: reward task * v - cost, with a task of 1 or -1.

    Each is as likely as the other, and as frequent: of tasks drawn one by one, a few would often
    be of one direction for the most part, and then favor a policy that knows no other.
    """

    name = "cheetah-direction"

    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Directions [count], as many of each; of an odd number, either has one more."""
        first = 2.0 * torch.randint(2, (1,), generator=random) - 1
        both = first * torch.tensor([1.0, -1.0]).repeat(count // 2 + 1)[:count]
        return both[torch.randperm(count, generator=random)]

    def reward(self, speeds: Tensor) -> Tensor:
        return speeds * self.tasks


class Physics:
    """Copies of a HalfCheetah side by side, in numpy float64.

    Raises:
        InputError: MuJoCo or Gymnasium, which has the body's description, is not installed.
    """

    def __init__(self) -> None:
        self.mujoco, self.model = _model()
        self.rest: Any = self.model.qpos0.copy()
        self._batch: Any = None
        self._copies = 0

    def start(self, positions: Any, velocities: Any) -> Any:
        """Place N copies at joint positions and velocities [N, 9]; returns states [N, 17]."""
        if self._copies != len(positions):
            batch = import_module("mujoco.batch")
            threads = torch.get_num_threads()
            self._batch = batch.Batch(self.model, nsim=len(positions), nthread=threads)
            self._copies = len(positions)
        self._batch.reset(stage=0)
        bound = self._batch.bind
        self.positions, self.velocities = bound("qpos"), bound("qvel")
        self.controls = bound("ctrl")
        self.positions[:], self.velocities[:] = positions, velocities
        self._batch.forward()
        return self._states()

    def step(self, controls: Any) -> tuple[Any, Any]:
        """One step of 0.05 seconds: states [N, 17] and mean forward speeds [N] during it."""
        before = self.positions[:, 0].copy()
        self.controls[:] = controls
        self._batch.step(nstep=FRAME_SKIP)
        return self._states(), (self.positions[:, 0] - before) / SECONDS

    def _states(self) -> Any:
        return np.concatenate([self.positions[:, 1:], self.velocities], 1)


def _model() -> tuple[Any, Any]:
    """MuJoCo and the compiled body."""
    try:
        mujoco = import_module("mujoco")
        import_module("mujoco.batch")
        assets = resources.files("gymnasium") / "envs" / "mujoco" / "assets"
    except ImportError as error:
        raise InputError(
            "HalfCheetah needs MuJoCo 3.17 or newer and Gymnasium: pip install 'omnitraining[rl]'"
        ) from error
    # The attribute is about to go from MuJoCo; its place is a call on the compiled body.
    text = (assets / "half_cheetah.xml").read_text("utf-8").replace('settotalmass="14"', "")
    model = mujoco.MjModel.from_xml_string(text)
    mujoco.mj_setTotalmass(model, 14)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return mujoco, model
