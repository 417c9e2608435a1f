"""Tasks of your own, on any Gymnasium vector environment."""

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
    """Copies of a Gymnasium environment, each of which is told its task before every reset.

    Before a reset, the attribute ``task`` of every copy is set to a row of what ``sample_tasks``
    returned, as a numpy array; the environment reads it in ``reset`` and ``step``. It is set on the
    environment inside all wrappers, and on every wrapper that has such an attribute too; after the
    reset it must still be there. Where copies run in processes of their own, as in
    ``AsyncVectorEnv``, the environment's class must have the attribute ``task``, and its wrappers
    none. Actions are clipped to the bounds of the action space. A trajectory ends where the
    environment terminates or truncates it. Copies are simulated as fast as their vector
    environment does.

    Args:
        make: of a number of copies, a ``gymnasium.vector.VectorEnv``.
        sample: of a number and a ``torch.Generator``, so many tasks, a tensor [number, ...].
        horizon: steps of a trajectory.
        name: what results are called by.

    Raises:
        InputError: Gymnasium is not installed, observations or actions are not boxes, ``make``
            returns another number of copies, or a task does not arrive.
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
        self._asked: type | None = None  # the class of vector environment that was found to do
        self.vector = self._made(1)
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
            self.vector = self._made(len(tasks))
        rows = list(tasks.cpu().numpy())
        self._tell(rows)
        seed = torch.randint(2**31, (), generator=random).item()
        observations, _ = self.vector.reset(seed=int(seed))
        self._check(rows)
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

    def _made(self, copies: int) -> Any:
        vector = self.make(copies)
        if (found := getattr(vector, "num_envs", None)) != copies:
            what = type(vector).__name__ if found is None else f"{found} copies"
            raise InputError(
                f"environment {self.name}: make({copies}) returned {what}: it must return a "
                f"gymnasium.vector.VectorEnv of {copies} copies"
            )
        return vector

    def _tell(self, tasks: list[Any]) -> None:
        """Set the task of every copy.

        Raises:
            InputError: there is no way to, or it fails.
        """
        base = getattr(self.vector, "unwrapped", self.vector)  # wrappers have no set_attr
        try:
            if (copies := _copies(base)) is not None:
                for copy, task in zip(copies, tasks, strict=True):
                    for level in _told(copy):
                        level.task = task
                return
            if self._asked is not type(base):
                self._check_reachable(base)
                self._asked = type(base)
            base.set_attr("task", tasks)
        except InputError:
            raise
        except Exception as error:  # of whatever kind: it is the user's code
            raise InputError(
                f"environment {self.name}: the attribute 'task' cannot be set: {described(error)}"
            ) from error

    def _check_reachable(self, base: Any) -> None:
        """Refuse copies that cannot be told, or of which only a wrapper would be told."""
        if not hasattr(base, "set_attr") or not hasattr(base, "get_attr"):
            raise InputError(
                f"environment {self.name}: {type(base).__name__} has neither copies in 'envs' nor "
                "set_attr and get_attr, by which each copy could be told its task"
            )
        if not (makers := getattr(base, "env_fns", None)):
            return
        sample = makers[0]()
        having = [type(level).__name__ for level in _levels(sample) if _has_task(level)]
        inner = type(sample.unwrapped).__name__
        sample.close()
        if having != [inner]:
            raise InputError(
                f"environment {self.name}: {' and '.join(having) or 'no class'} has an attribute "
                f"'task': where copies run in processes, {inner} must have it, as 'task = None' in "
                "the class, and no wrapper around it"
            )

    def _check(self, tasks: list[Any]) -> None:
        """Refuse copies that do not have their tasks after the reset."""
        base = getattr(self.vector, "unwrapped", self.vector)
        if (copies := _copies(base)) is not None:
            found = [[level.task for level in _told(copy)] for copy in copies]
        else:
            found = [[task] for task in base.get_attr("task")]
        for number, (task, held) in enumerate(zip(tasks, found, strict=True)):
            for other in held:
                if not _same(task, other):
                    raise InputError(
                        f"environment {self.name}: the attribute 'task' of copy {number} is "
                        f"{_short(other)} after a reset, and not {_short(task)} as it was set: "
                        "reset must leave it as it is"
                    )

    def _states(self, observations: Any) -> Tensor:
        flat = observations.reshape(len(observations), -1)
        return torch.as_tensor(flat, dtype=torch.float32, device=self.device)


def _copies(base: Any) -> list[Any] | None:
    """The environments of a vector environment, where they are in this process."""
    found = getattr(base, "envs", None)
    if not isinstance(found, list | tuple) or not found:
        return None
    return list(found) if all(hasattr(each, "unwrapped") for each in found) else None


def _levels(env: Any) -> list[Any]:
    """An environment's wrappers from the outside, and what they wrap."""
    levels = [env]
    while levels[-1] is not env.unwrapped and hasattr(levels[-1], "env"):
        levels.append(levels[-1].env)
    return levels if levels[-1] is env.unwrapped else [*levels, env.unwrapped]


def _told(env: Any) -> list[Any]:
    """Where the task of an environment is set."""
    *wrappers, inner = _levels(env)
    return [*filter(_has_task, wrappers), inner]


def _has_task(level: Any) -> bool:
    """Whether it has the attribute itself, and does not ask what it wraps."""
    return "task" in getattr(level, "__dict__", ()) or hasattr(type(level), "task")


def _same(task: Any, found: Any) -> bool:
    try:
        one, other = np.asarray(task), np.asarray(found)
        return one.shape == other.shape and bool(np.allclose(one, other, equal_nan=True))
    except (TypeError, ValueError):
        return False


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:40]}..."
