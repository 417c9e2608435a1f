"""2D Navigation (paper 6.3): move from the center of a square to a goal that is not observed."""

from typing import Literal

import torch
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.tasks.reinforcement.environment import StateRewards


class Navigation(StateRewards):
    """A point at (0, 0) that moves by at most 0.1 per axis and step; goals in [-0.5, 0.5]^2.

    A trajectory ends when both coordinates are within 0.01 of the goal.

    Args:
        reward: ``"squared"``, minus the squared distance to the goal, as in the paper, or
            ``"distance"``, minus the distance, as in MAML's published returns.
        scale: distance of an action of 1. At 1 an untrained policy, of deviation 1, nearly always
            moves by the maximum, so that learning is slow.
        horizon: steps of a trajectory.

    Raises:
        InputError: scale or horizon is not positive.

    Example:
        >>> import torch
        >>> from omnitraining import Navigation
        >>> environment = Navigation(horizon=10)
        >>> goals = environment.sample_tasks(3, torch.Generator().manual_seed(0))
        >>> environment.reset(goals, torch.Generator()).tolist()
        [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
        >>> positions, rewards, ended = environment.step(torch.ones(3, 2))
        >>> positions[0].tolist() == [torch.tensor(0.1).item()] * 2
        True
    """

    state_dim = action_dim = 2

    def __init__(
        self,
        reward: Literal["squared", "distance"] = "squared",
        scale: float = 0.1,
        horizon: int = 100,
    ) -> None:
        """Check and keep the options."""
        if scale <= 0 or horizon < 1:
            raise InputError(
                f"environment.scale is {scale} and environment.horizon {horizon}: the first must "
                "be greater than 0, the second 1 or more"
            )
        self.reward, self.scale, self.horizon = reward, scale, horizon
        self.name = "navigation" if reward == "squared" else "navigation-distance"

    def identity(self) -> str:
        """Name, horizon and scale."""
        return f"{super().identity()} scale {self.scale}"

    def sample_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Goals [count, 2]."""
        return torch.rand(count, 2, generator=random) - 0.5

    def spread_tasks(self, count: int, random: torch.Generator) -> Tensor:
        """Goals [count, 2] at the centers of ``count`` cells of equal area, which fill the square.

        The cells are in about as many rows as columns; some rows have one cell more than others,
        and the height of a row is in proportion to its number of cells.
        """
        rows = max(1, round(count**0.5))
        columns = torch.tensor([count // rows + (row < count % rows) for row in range(rows)])
        bottoms = columns.cumsum(0) - columns
        heights = (bottoms + columns / 2) / count
        goals = [
            torch.stack([(torch.arange(n) + 0.5) / n, y.expand(n)], 1)
            for n, y in zip(columns.tolist(), heights, strict=True)
        ]
        return torch.cat(goals) - 0.5

    def reset(self, tasks: Tensor, random: torch.Generator) -> Tensor:
        """Every copy at (0, 0)."""
        self.goals = tasks
        self.positions = torch.zeros_like(tasks)
        return self.positions

    def move(self, actions: Tensor) -> Tensor:
        """Move by the actions [N, 2]; states are positions [N, 2]."""
        self.positions = (self.scale * actions).clamp_(-0.1, 0.1).add_(self.positions)
        return self.positions

    def outcomes(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards of positions [..., N, 2], and whether the goals are reached there."""
        # Coordinate by coordinate: torch reduces over a dimension of 2 at a tenth of this speed.
        x, y = (s - g for s, g in zip(states.unbind(-1), self.goals.unbind(-1), strict=True))
        rewards = torch.addcmul(x.square(), y, y)
        if self.reward == "distance":
            rewards = rewards.sqrt()
        return -rewards, (x.abs() < 0.01) & (y.abs() < 0.01)
