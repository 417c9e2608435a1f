"""Few-shot evaluation: fixed tasks, every head, 95 % intervals, paired differences."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from omnitraining.errors import InputError

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Inference:
    """How a trained model predicts (paper 4.3).

    Args:
        vote: flows in the ensemble, as far as the model has them.
        vote_weights: ``"equal"``: the mean; ``"validation"``: the convex combination that does
            best on the validation tasks, chosen per number of shots and steps.
        joint_head: the new head of the joint-flow: ``"pre"`` or ``"meta"``, as the algorithm of
            that training fits it, or ``"both"``, the mean of the two.
        weights: predict with the EMA ``"teacher"``, with the ``"student"`` itself, or with the
            ``"best"`` of the two, checkpoint by checkpoint, by validation score.
    """

    vote: tuple[Literal["pre", "joint", "meta"], ...] = ("pre", "joint", "meta")
    vote_weights: Literal["equal", "validation"] = "equal"
    joint_head: Literal["pre", "meta", "both"] = "meta"
    weights: Literal["best", "teacher", "student"] = "best"

    def voters(self, trained: tuple[str, ...]) -> tuple[str, ...]:
        """The flows that vote in a model whose trained flows are given."""
        voters = tuple(flow for flow in trained if flow in self.vote)
        if not voters:
            raise InputError(
                f"inference.vote is {list(self.vote)}, but the model has only {list(trained)}"
            )
        return voters


@dataclass(frozen=True)
class Cell:
    """One column of a results table: one benchmark, one number of shots.

    Attributes:
        tasks_hash: identifies the test tasks; only results on the same tasks are comparable.
        scores: per head, the score of each task.
    """

    tasks_hash: str
    scores: dict[str, list[float]]

    def mean(self, head: str = ENSEMBLE) -> float:
        return sum(self.scores[head]) / len(self.scores[head])

    def interval(self, head: str = ENSEMBLE) -> float:
        """Half-width of the 95 % interval of the mean over tasks."""
        return half_width(torch.tensor(self.scores[head]))


@dataclass(frozen=True)
class Evaluation:
    """Results of one model.

    Attributes:
        unit: what a score is.
        higher_is_better: direction of the score.
        cells: results by cell name.
    """

    unit: str
    higher_is_better: bool
    cells: dict[str, Cell] = field(default_factory=dict)


def half_width(values: Tensor) -> float:
    """1.96 * std / sqrt(n), with the population's standard deviation, as few-shot learning has it.

    Args:
        values: one value per task [n].
    """
    return 1.96 * values.double().std(correction=0).item() / math.sqrt(len(values))


@dataclass(frozen=True)
class Difference:
    """Mean paired difference over tasks with its 95 % interval."""

    mean: float
    interval: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes zero."""
        return abs(self.mean) > self.interval


def paired_difference(first: list[float], second: list[float]) -> Difference:
    """First - second, task by task.

    Args:
        first: scores of one method on the tasks.
        second: scores of the other on the same tasks.

    Raises:
        InputError: the lists differ in length.
    """
    if len(first) != len(second):
        raise InputError(f"cannot pair {len(first)} with {len(second)} tasks")
    difference = torch.tensor(first, dtype=torch.float64) - torch.tensor(
        second, dtype=torch.float64
    )
    return Difference(difference.mean().item(), half_width(difference))


def tasks_hash(fingerprint: str, *indices: Tensor) -> str:
    """Identifies a list of tasks by the data they are drawn from and their samples."""
    digest = hashlib.sha256(fingerprint.encode())
    for tensor in indices:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def simplex_grid(corners: int, parts: int = 10) -> Tensor:
    """All convex weights over the corners in steps of 1 / parts, [G, corners]."""
    if corners == 1:
        return torch.ones(1, 1)
    grid = torch.cartesian_prod(*[torch.arange(parts + 1)] * (corners - 1))
    grid = grid.reshape(-1, corners - 1)
    grid = grid[grid.sum(1) <= parts]
    return torch.cat([grid, parts - grid.sum(1, keepdim=True)], 1) / parts
