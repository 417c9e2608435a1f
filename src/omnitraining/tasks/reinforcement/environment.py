"""Environments: a distribution of tasks, and a simulator of many copies at once."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from omnitraining.errors import InputError


class Environment(ABC):
    """N copies of one environment that are stepped together, each with its own task.

    Attributes:
        state_dim: size S of a state.
        action_dim: size A of an action.
        horizon: steps H after which a trajectory ends, if it has not before.
        name: of the environment in tables of results.

    Example:
        >>> import torch
        >>> from omnitraining import Environment
        >>> class Slider(Environment):
        ...     state_dim = action_dim = 1
        ...     horizon, name = 20, "slider"
        ...
        ...     def sample_tasks(self, count, random):
        ...         return 2 * torch.rand(count, 1, generator=random) - 1
        ...
        ...     def reset(self, tasks, random):
        ...         self.goals, self.positions = tasks, torch.zeros_like(tasks)
        ...         return self.positions
        ...
        ...     def step(self, actions):
        ...         self.positions = self.positions + 0.1 * actions.clamp(-1, 1)
        ...         distances = (self.positions - self.goals).abs().squeeze(-1)
        ...         return self.positions, -distances, distances < 0.01
        >>> Slider().identity()
        'slider 20'
    """

    state_dim: int
    action_dim: int
    horizon: int
    name: str

    def identity(self) -> str:
        """All options that returns depend on; results are compared only if it is the same."""
        return f"{self.name} {self.horizon}"

    @abstractmethod
    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Tasks [count, ...] drawn independently, on the CPU."""

    def spread_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Tasks [count, ...] for validation, on the CPU; by default as `sample_tasks`.

        An environment that can cover its distribution of tasks evenly does: few tasks that are
        drawn may happen to be mostly of one kind, and favor a policy that is good at it.
        """
        return self.sample_tasks(count, random)

    @abstractmethod
    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        """Start one copy for each of N tasks [N, ...]; returns the first states [N, S].

        Args:
            tasks: of `sample_tasks`, each for several copies; all tensors are on their device.
            random: source of random initial states, on the CPU.
        """

    @abstractmethod
    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take an action [N, A] in every copy.

        Copies that have ended are stepped further; their outputs are ignored.

        Returns:
            The next states [N, S], rewards [N], and whether the trajectory has ended [N].
        """


class StateRewards(Environment):
    """An environment whose rewards and ends depend on nothing but the states and the tasks.

    They are computed for all steps of a rollout at once: on `Navigation` a sixth less time.

    Example:
        >>> import torch
        >>> from omnitraining import StateRewards
        >>> class Slider(StateRewards):
        ...     state_dim = action_dim = 1
        ...     horizon, name = 20, "slider"
        ...
        ...     def sample_tasks(self, count, random):
        ...         return 2 * torch.rand(count, 1, generator=random) - 1
        ...
        ...     def reset(self, tasks, random):
        ...         self.goals, self.positions = tasks, torch.zeros_like(tasks)
        ...         return self.positions
        ...
        ...     def move(self, actions):
        ...         self.positions = self.positions + 0.1 * actions.clamp(-1, 1)
        ...         return self.positions
        ...
        ...     def outcomes(self, states):
        ...         distances = (states - self.goals).abs().squeeze(-1)
        ...         return -distances, distances < 0.01
        >>> slider = Slider()
        >>> slider.reset(torch.ones(1, 1), torch.Generator()).item()
        0.0
        >>> [part.shape for part in slider.step(torch.ones(1, 1))]
        [torch.Size([1, 1]), torch.Size([1]), torch.Size([1])]
    """

    @abstractmethod
    def move(self, actions: Tensor) -> Tensor:
        """Take an action [N, A] in every copy; returns the next states [N, S]."""

    @abstractmethod
    def outcomes(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards [..., N] of arriving in states [..., N, S], and whether trajectories end there.

        Args:
            states: of all copies, at any number of steps.
        """

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take an action [N, A] in every copy; returns states, rewards and ends."""
        states = self.move(actions)
        return states, *self.outcomes(states)


def as_state_rewards(environment: Environment) -> StateRewards | None:
    """The environment, if rewards can follow all steps; not where a subclass has its own `step`.

    Args:
        environment: of any class.
    """
    if isinstance(environment, StateRewards) and type(environment).step is StateRewards.step:
        return environment
    return None


def checked_tasks(
    environment: Environment, count: int, random: torch.Generator, spread: bool = False
) -> Tensor:
    """Tasks of a sampler [count, ...].

    Args:
        environment: that samples.
        count: number of tasks.
        random: source of the tasks, on the CPU.
        spread: by `Environment.spread_tasks`, unless a subclass has changed ``sample_tasks`` alone,
            so that it would cover another distribution.

    Raises:
        InputError: it returned another number of tasks, or no tensor.
    """
    fits = issubclass(
        _defining_class(environment, "spread_tasks"), _defining_class(environment, "sample_tasks")
    )
    name = "spread_tasks" if spread and fits else "sample_tasks"
    tasks = getattr(environment, name)(count, random)
    if not isinstance(tasks, Tensor) or tasks.dim() < 1 or len(tasks) != count:
        returned = list(tasks.shape) if isinstance(tasks, Tensor) else type(tasks).__name__
        raise InputError(
            f"{type(environment).__name__}.{name}({count}) returned {returned}: it must "
            f"return a tensor whose first dimension is {count}"
        )
    return tasks


def _defining_class(environment: Environment, method: str) -> type:
    """The class whose method of a name the environment has."""
    return next(kind for kind in type(environment).__mro__ if method in vars(kind))
