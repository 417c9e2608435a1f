"""What a distribution of reinforcement learning tasks is: goals, and a world to reach them in."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from omnitraining.errors import InputError


class Environment(ABC):
    """Many copies of one world side by side, each with a task of its own.

    Attributes:
        states: size S of a state.
        actions: size A of an action.
        horizon: steps H after which a trajectory ends, if it has not before.
        name: what results are called by.
    """

    states: int
    actions: int
    horizon: int
    name: str

    def identity(self) -> str:
        """What returns depend on besides the task; only results with the same are comparable."""
        return f"{self.name} {self.horizon}"

    @abstractmethod
    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Tasks [count, ...] drawn independently, on the CPU."""

    @abstractmethod
    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        """Start one copy for each of N tasks [N, ...]; returns the first states [N, S].

        Args:
            tasks: of `sample_tasks`, some of them repeated; their device is that of all tensors.
            random: source of random starts, on the CPU.
        """

    @abstractmethod
    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Act in every copy: states [N, S], rewards [N], and whether the task ended there [N].

        Copies that ended are stepped on; what they return is not looked at.
        """


def checked_tasks(environment: Environment, count: int, random: torch.Generator) -> Tensor:
    """Tasks of a sampler, if it gave as many as it was asked for.

    Raises:
        InputError: it did not.
    """
    tasks = environment.sample_tasks(count, random)
    if not isinstance(tasks, Tensor) or tasks.dim() < 1 or len(tasks) != count:
        found = list(tasks.shape) if isinstance(tasks, Tensor) else type(tasks).__name__
        raise InputError(
            f"{type(environment).__name__}.sample_tasks({count}) returned {found}: it must return "
            f"a tensor whose first dimension is {count}"
        )
    return tasks
