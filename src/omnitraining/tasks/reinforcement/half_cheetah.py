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
    """The robot of both kinds of task; no trajectory ends before its last step.

    States and initial states are as in HalfCheetah-v5: positions uniform within 0.1 of the rest
    pose, velocities normal with deviation 0.1. Actions are clipped to +-1.

    Args:
        control_cost: weight of the squared action in the reward. The paper names none; both code
            bases that it builds on have 0.05, on the action after clipping.
        horizon: steps of a trajectory.

    Raises:
        InputError: MuJoCo or Gymnasium is not installed, or a number is out of its range.
    """

    state_dim, action_dim = 17, 6

    def __init__(self, control_cost: float = 0.05, horizon: int = 200) -> None:
        """Load MuJoCo and the model of the robot."""
        if control_cost < 0 or horizon < 1:
            raise InputError(
                f"environment.control_cost is {control_cost} and environment.horizon {horizon}: "
                "the first must be 0 or more, the second 1 or more"
            )
        self.control_cost, self.horizon = control_cost, horizon
        self.physics = Physics()

    def identity(self) -> str:
        """Name, horizon and control cost."""
        return f"{super().identity()} control cost {self.control_cost}"

    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        """States [N, 17] near the rest pose."""
        self.tasks, self.never = (
            tasks,
            torch.zeros(len(tasks), dtype=torch.bool, device=tasks.device),
        )
        count, joints = len(tasks), len(self.physics.rest)
        positions = 0.2 * torch.rand(count, joints, generator=random, dtype=torch.float64) - 0.1
        velocities = 0.1 * torch.randn(count, joints, generator=random, dtype=torch.float64)
        states = self.physics.reset(self.physics.rest + positions.numpy(), velocities.numpy())
        return self._tensor(states)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Apply torques [N, 6] for 0.05 seconds; returns states, rewards and no ends."""
        actions = actions.clamp(-1, 1)
        states, speeds = self.physics.step(actions.cpu().numpy())
        # After the physics no code is in a core's cache: few calls matter more than few numbers.
        squares = actions.square().sum(-1)
        rewards = self.reward(self._tensor(speeds)).sub(squares, alpha=self.control_cost)
        return self._tensor(states), rewards, self.never

    @abstractmethod
    def reward(self, speeds: Tensor) -> Tensor:
        """Rewards before costs [N] of mean forward speeds [N] in meters per second."""

    def _tensor(self, values: Any) -> Tensor:
        return torch.from_numpy(values).to(self.tasks.device, torch.float32)


class HalfCheetahVelocity(HalfCheetah):
    """Run at a speed between 0 and 2 meters per second: reward -|v - task| - cost.

    Example:
        >>> import torch
        >>> from omnitraining import HalfCheetahVelocity
        >>> environment = HalfCheetahVelocity(horizon=10)
        >>> tasks, random = torch.tensor([0.5, 2.0]), torch.Generator().manual_seed(0)
        >>> environment.reset(tasks, random).shape
        torch.Size([2, 17])
        >>> states, rewards, ended = environment.step(torch.zeros(2, 6))
        >>> rewards.shape, ended.any().item()
        (torch.Size([2]), False)
    """

    name = "cheetah-velocity"

    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Target speeds [count] in meters per second."""
        return 2 * torch.rand(count, generator=random)

    def spread_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Target speeds [count] at the centers of as many equal parts of the range."""
        return 2 * (torch.arange(count) + 0.5) / count

    def reward(self, speeds: Tensor) -> Tensor:
        """Minus the distance of the speeds [N] to the target speeds."""
        return -(speeds - self.tasks).abs()


class HalfCheetahDirection(HalfCheetah):
    """Run forwards or backwards: reward task * v - cost, with a task of 1 or -1.

    Samples are balanced, half of each direction. A few independent tasks would often be mostly of
    one direction, and favor a policy that has learned only that.

    Example:
        >>> import torch
        >>> from omnitraining import HalfCheetahDirection
        >>> environment = HalfCheetahDirection(horizon=10)
        >>> environment.sample_tasks(4, torch.Generator().manual_seed(0)).sum().item()
        0.0
    """

    name = "cheetah-direction"

    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Directions [count], half of each; of an odd number, either may have one more."""
        first = 2.0 * torch.randint(2, (1,), generator=random) - 1
        both = first * torch.tensor([1.0, -1.0]).repeat(count // 2 + 1)[:count]
        return both[torch.randperm(count, generator=random)]

    def reward(self, speeds: Tensor) -> Tensor:
        """Speeds [N] in the directions of the tasks."""
        return speeds * self.tasks


class Physics:
    """N copies of a HalfCheetah in MuJoCo, in numpy float64.

    Attributes:
        rest: joint positions of the rest pose [9].
        positions: joint positions [N, 9], set by `reset`.
        velocities: joint velocities [N, 9], set by `reset`.

    Raises:
        InputError: MuJoCo or Gymnasium, which has the model of the body, is not installed.
    """

    def __init__(self) -> None:
        """Load MuJoCo and the model of the robot."""
        self.mujoco, self.model = _model()
        self.rest: Any = self.model.qpos0.copy()
        self._batch: Any = None
        self._copies = 0

    def reset(self, positions: Any, velocities: Any) -> Any:
        """Set joint positions and velocities [N, 9] of N copies; returns states [N, 17]."""
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
        return self._states()

    def step(self, controls: Any) -> tuple[Any, Any]:
        """Advance by 0.05 seconds.

        Args:
            controls: torques in [-1, 1] [N, 6], of any precision.

        Returns:
            States [N, 17], and the mean forward speeds of the step [N] in meters per second.
        """
        before = self.positions[:, 0].copy()
        self.controls[:] = controls
        self._batch.step(nstep=FRAME_SKIP)
        return self._states(), (self.positions[:, 0] - before) / SECONDS

    def _states(self) -> Any:
        return np.concatenate([self.positions[:, 1:], self.velocities], 1)


def _model() -> tuple[Any, Any]:
    """MuJoCo and the compiled model."""
    try:
        mujoco = import_module("mujoco")
        import_module("mujoco.batch")
        assets = resources.files("gymnasium") / "envs" / "mujoco" / "assets"
    except ImportError as error:
        raise InputError(
            "HalfCheetah needs MuJoCo 3.17 or newer and Gymnasium: pip install 'omnitraining[rl]'"
        ) from error
    # The attribute is deprecated in MuJoCo; a call on the compiled model replaces it.
    text = (assets / "half_cheetah.xml").read_text("utf-8").replace('settotalmass="14"', "")
    model = mujoco.MjModel.from_xml_string(text)
    mujoco.mj_setTotalmass(model, 14)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return mujoco, model
