"""Tasks of your own, on any Gymnasium vector environment."""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.tasks.reinforcement.environment import Environment


class GymnasiumTasks(Environment):
    """Copies of a Gymnasium environment, each of which is told its task before every reset.

    Before a reset, the attribute ``task`` of every copy is set to a row of what ``sample_tasks``
    returned, as a numpy array; the environment reads it in ``reset`` and ``step``. Actions are
    clipped to the bounds of the action space. A trajectory ends where the environment terminates
    or truncates it. Copies are simulated as fast as their vector environment does.

    Args:
        make: of a number of copies, a ``gymnasium.vector.VectorEnv``.
        sample: of a number and a ``torch.Generator``, so many tasks, a tensor [number, ...].
        horizon: steps of a trajectory.
        name: what results are called by.

    Raises:
        InputError: Gymnasium is not installed, or observations or actions are not boxes.
    """

    def __init__(
        self,
        make: Callable[[int], Any],
        sample: Callable[[int, torch.Generator], Tensor],
        horizon: int,
        name: str = "gymnasium",
    ) -> None:
        try:
            spaces = import_module("gymnasium.spaces")
        except ImportError as error:
            raise InputError(
                "GymnasiumTasks needs Gymnasium: pip install 'omnitraining[rl]'"
            ) from error
        if horizon < 1:
            raise InputError(f"environment.horizon is {horizon}: it must be 1 or more")
        self.make, self.sample, self.horizon, self.name = make, sample, horizon, name
        self.vector = make(1)
        for what in ("observation", "action"):
            space = getattr(self.vector, f"single_{what}_space", None)
            if not isinstance(space, spaces.Box):
                raise InputError(
                    f"environment {name}: the {what} space is {space}: a Gaussian policy needs a "
                    "Box of real numbers"
                )
        self.states = math.prod(self.vector.single_observation_space.shape)
        self.actions = math.prod(self.vector.single_action_space.shape)

    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        return self.sample(count, random)

    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        self.device = tasks.device
        if self.vector.num_envs != len(tasks):
            self.vector.close()
            self.vector = self.make(len(tasks))
        self.vector.set_attr("task", list(tasks.cpu().numpy()))
        seed = torch.randint(2**31, (), generator=random).item()
        observations, _ = self.vector.reset(seed=int(seed))
        return self._states(observations)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        space = self.vector.single_action_space
        shaped = actions.cpu().numpy().reshape(-1, *space.shape)
        clipped = np.clip(shaped, space.low, space.high).astype(space.dtype)
        observations, rewards, terminated, truncated, _ = self.vector.step(clipped)
        return (
            self._states(observations),
            torch.as_tensor(rewards, dtype=torch.float32, device=self.device),
            torch.as_tensor(terminated | truncated, device=self.device),
        )

    def _states(self, observations: Any) -> Tensor:
        flat = observations.reshape(len(observations), -1)
        return torch.as_tensor(flat, dtype=torch.float32, device=self.device)
