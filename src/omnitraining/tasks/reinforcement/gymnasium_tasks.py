"""Environments of Gymnasium: any vector environment whose copies have an attribute ``task``."""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnitraining.errors import InputError, described
from omnitraining.tasks.reinforcement.environment import Environment


class GymnasiumTasks(Environment):
    """Copies of a Gymnasium environment, each with its own task.

    Before a reset, the attribute ``task`` of every copy is set to a row of the tensor that
    ``sample`` returned, as a numpy array; the environment reads it in ``reset`` and ``step``. It
    is set on the environment inside all wrappers, and on every wrapper that has such an attribute
    too; ``reset`` must not change it. Where copies run in separate processes, as in
    ``AsyncVectorEnv``, the environment's class must have the attribute ``task``, and its wrappers
    none. Actions are clipped to the bounds of the action space. A trajectory ends where the
    environment terminates or truncates it.

    Args:
        make: from a number of copies to a ``gymnasium.vector.VectorEnv``.
        sample: from a number and a ``torch.Generator`` to that many tasks, a tensor [number, ...].
        horizon: steps of a trajectory.
        name: of the environment in tables of results.

    Raises:
        InputError: Gymnasium is not installed, observations or actions are not boxes, ``make``
            returns another number of copies, or a task cannot be set.

    Example:
        >>> import gymnasium, numpy, torch
        >>> from omnitraining import GymnasiumTasks
        >>> class Point(gymnasium.Env):
        ...     observation_space = gymnasium.spaces.Box(-numpy.inf, numpy.inf, (1,))
        ...     action_space = gymnasium.spaces.Box(-1, 1, (1,))
        ...     task = None
        ...
        ...     def reset(self, seed=None, options=None):
        ...         self.x = numpy.zeros(1, numpy.float32)
        ...         return self.x, {}
        ...
        ...     def step(self, action):
        ...         self.x = self.x + action
        ...         return self.x, -abs(self.x - self.task).item(), False, False, {}
        >>> make = lambda copies: gymnasium.vector.SyncVectorEnv([Point] * copies)
        >>> sample = lambda count, random: torch.rand(count, generator=random)
        >>> environment = GymnasiumTasks(make, sample, horizon=10)
        >>> environment.state_dim, environment.action_dim
        (1, 1)
        >>> states = environment.reset(torch.tensor([0.0, 1.0]), torch.Generator())
        >>> environment.step(torch.zeros(2, 1))[1].tolist()
        [-0.0, -1.0]
    """

    def __init__(
        self,
        make: Callable[[int], Any],
        sample: Callable[[int, torch.Generator], Tensor],
        horizon: int,
        name: str = "gymnasium",
    ) -> None:
        """Make one copy, for the sizes of states and actions."""
        try:
            spaces = import_module("gymnasium.spaces")
        except ImportError as error:
            raise InputError(
                "GymnasiumTasks needs Gymnasium: pip install 'omnitraining[rl]'"
            ) from error
        if horizon < 1:
            raise InputError(f"environment.horizon is {horizon}: it must be 1 or more")
        self.make, self.sample, self.horizon, self.name = make, sample, horizon, name
        self._reachable: type | None = None  # the class whose copies `_check_reachable` accepted
        self.vector = self._vector_of(1)
        for kind in ("observation", "action"):
            space = getattr(self.vector, f"single_{kind}_space", None)
            if not isinstance(space, spaces.Box):
                raise InputError(
                    f"environment {name}: the {kind} space is {space}: a Gaussian policy needs a "
                    "Box of real numbers"
                )
        self.state_dim = math.prod(self.vector.single_observation_space.shape)
        self.action_dim = math.prod(self.vector.single_action_space.shape)

    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Tasks [count, ...] of the sampler."""
        return self.sample(count, random)

    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        """Set the task of every copy, and reset all; returns observations, flattened [N, S]."""
        self.device = tasks.device
        if self.vector.num_envs != len(tasks):
            self.vector.close()
            self.vector = self._vector_of(len(tasks))
        rows = list(tasks.cpu().numpy())
        self._set_tasks(rows)
        seed = torch.randint(2**31, (), generator=random).item()
        observations, _ = self.vector.reset(seed=int(seed))
        self._check_tasks(rows)
        return self._states(observations)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Apply actions [N, A], clipped to the action space."""
        space = self.vector.single_action_space
        shaped = actions.cpu().numpy().reshape(-1, *space.shape)
        clipped = np.clip(shaped, space.low, space.high).astype(space.dtype)
        observations, rewards, terminated, truncated, _ = self.vector.step(clipped)
        return (
            self._states(observations),
            torch.as_tensor(rewards, dtype=torch.float32, device=self.device),
            torch.as_tensor(terminated | truncated, device=self.device),
        )

    def _vector_of(self, copies: int) -> Any:
        vector = self.make(copies)
        if (count := getattr(vector, "num_envs", None)) != copies:
            returned = type(vector).__name__ if count is None else f"{count} copies"
            raise InputError(
                f"environment {self.name}: make({copies}) returned {returned}: it must return a "
                f"gymnasium.vector.VectorEnv of {copies} copies"
            )
        return vector

    def _set_tasks(self, tasks: list[Any]) -> None:
        """Set the task of every copy.

        Raises:
            InputError: the vector environment has no method for it, or the method fails.
        """
        base = getattr(self.vector, "unwrapped", self.vector)  # wrappers have no set_attr
        try:
            if (copies := _copies(base)) is not None:
                for copy, task in zip(copies, tasks, strict=True):
                    for holder in _task_holders(copy):
                        holder.task = task
                return
            if self._reachable is not type(base):
                self._check_reachable(base)
                self._reachable = type(base)
            base.set_attr("task", tasks)
        except InputError:
            raise
        except Exception as error:  # of whatever kind: it is the user's code
            raise InputError(
                f"environment {self.name}: the attribute 'task' cannot be set: {described(error)}"
            ) from error

    def _check_reachable(self, base: Any) -> None:
        """Refuse copies whose task cannot be set, or of which only a wrapper would have it."""
        if not hasattr(base, "set_attr") or not hasattr(base, "get_attr"):
            raise InputError(
                f"environment {self.name}: {type(base).__name__} has neither copies in 'envs' nor "
                "set_attr and get_attr, which set the task of each copy"
            )
        if not (makers := getattr(base, "env_fns", None)):
            return
        sample = makers[0]()
        holders = [type(layer).__name__ for layer in _layers(sample) if _has_task(layer)]
        inner = type(sample.unwrapped).__name__
        sample.close()
        if holders != [inner]:
            raise InputError(
                f"environment {self.name}: {' and '.join(holders) or 'no class'} has an attribute "
                f"'task': where copies run in processes, {inner} must have it, as 'task = None' in "
                "the class, and no wrapper around it"
            )

    def _check_tasks(self, tasks: list[Any]) -> None:
        """Refuse copies that do not have their tasks after the reset."""
        base = getattr(self.vector, "unwrapped", self.vector)
        if (copies := _copies(base)) is not None:
            present = [[holder.task for holder in _task_holders(copy)] for copy in copies]
        else:
            present = [[task] for task in base.get_attr("task")]
        for number, (task, held) in enumerate(zip(tasks, present, strict=True)):
            for value in held:
                if not _same(task, value):
                    raise InputError(
                        f"environment {self.name}: the attribute 'task' of copy {number} is "
                        f"{_short(value)} after a reset, and not {_short(task)} as it was set: "
                        "reset must leave it as it is"
                    )

    def _states(self, observations: Any) -> Tensor:
        flat = observations.reshape(len(observations), -1)
        return torch.as_tensor(flat, dtype=torch.float32, device=self.device)


def _copies(base: Any) -> list[Any] | None:
    """The environments of a vector environment, where they are in this process."""
    copies = getattr(base, "envs", None)
    if not isinstance(copies, list | tuple) or not copies:
        return None
    return list(copies) if all(hasattr(copy, "unwrapped") for copy in copies) else None


def _layers(env: Any) -> list[Any]:
    """An environment's wrappers from the outside, and the environment inside them."""
    layers = [env]
    while layers[-1] is not env.unwrapped and hasattr(layers[-1], "env"):
        layers.append(layers[-1].env)
    return layers if layers[-1] is env.unwrapped else [*layers, env.unwrapped]


def _task_holders(env: Any) -> list[Any]:
    """The objects on which the task of an environment is set."""
    *wrappers, inner = _layers(env)
    return [*filter(_has_task, wrappers), inner]


def _has_task(layer: Any) -> bool:
    """Whether it has the attribute itself, and does not forward it to the wrapped environment."""
    return "task" in getattr(layer, "__dict__", ()) or hasattr(type(layer), "task")


def _same(task: Any, value: Any) -> bool:
    try:
        one, other = np.asarray(task), np.asarray(value)
        return one.shape == other.shape and bool(np.allclose(one, other, equal_nan=True))
    except (TypeError, ValueError):
        return False


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:40]}..."
