"""Few-shot evaluation: fixed tasks, every head, 95 % intervals, paired differences."""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from omnitraining.errors import InputError

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Inference:
    """How a trained model predicts (paper 4.3).

    Args:
        flows: in the ensemble, as far as the model has them.
        ensemble_weights: ``"equal"``: the mean; ``"validation"``: the convex combination that does
            best on the validation tasks, chosen per number of shots and steps.
        joint_head: the new head of the joint-flow: ``"pre"`` or ``"meta"``, as the algorithm of
            that training fits it, or ``"both"``, the mean of the two.
        weights: predict with the EMA ``"teacher"``, with the ``"student"`` itself, or with the
            ``"best"`` of the two, checkpoint by checkpoint, by validation score.
    """

    flows: tuple[Literal["pre", "joint", "meta"], ...] = ("pre", "joint", "meta")
    ensemble_weights: Literal["equal", "validation"] = "equal"
    joint_head: Literal["pre", "meta", "both"] = "meta"
    weights: Literal["best", "teacher", "student"] = "best"

    def members(self, trained: tuple[str, ...]) -> tuple[str, ...]:
        """The flows of the ensemble in a model whose trained flows are given."""
        members = tuple(flow for flow in trained if flow in self.flows)
        if not members:
            raise InputError(
                f"inference.flows is {list(self.flows)}, but the model has only {list(trained)}"
            )
        return members


def ensemble_mean(
    outputs: Mapping[str, Tensor], members: Collection[str] | Mapping[str, float]
) -> Tensor:
    """Mean of the outputs of the members of an ensemble, in the shape of each.

    Args:
        outputs: by name, of members and of others.
        members: their names, for an equal mean; or their weights by name, which sum to 1.
    """
    if isinstance(members, Mapping):
        return torch.stack([weight * outputs[name] for name, weight in members.items()]).sum(0)
    return torch.stack([outputs[name] for name in members]).mean(0)


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


def evaluation_from(record: Any) -> Evaluation:
    """An evaluation of the values that `dataclasses.asdict` makes of one.

    Raises:
        ValueError: they are not; the message says what is wrong.
    """
    if not isinstance(record, dict) or {*record} != {"unit", "higher_is_better", "cells"}:
        raise ValueError("it must have unit, higher_is_better and cells")
    cells = {}
    if not isinstance(record["cells"], dict):  # a search has none: it is judged by validation
        raise ValueError("cells must be a mapping")
    for name, values in record["cells"].items():
        if {*_mapping(values, name)} != {"tasks_hash", "scores"}:
            raise ValueError(f"{name} must have tasks_hash and scores")
        scores = _mapping(values["scores"], f"scores of {name}")
        lists = [v for v in scores.values() if isinstance(v, list) and v and all(map(_is_score, v))]
        if ENSEMBLE not in scores or len(lists) < len(scores) or len({*map(len, lists)}) != 1:
            raise ValueError(f"scores of {name} must be equally many numbers for each head")
        cells[name] = Cell(str(values["tasks_hash"]), scores)
    return Evaluation(str(record["unit"]), record["higher_is_better"] is True, cells)


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{name} must be a mapping")
    return value


def _is_score(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and not math.isnan(value)


def half_width(scores: Tensor) -> float:
    """Half-width of the 95 % interval of the mean over tasks, and over seeds where there are any.

    Over tasks it is 1.96 std / sqrt(T), with the population's standard deviation, as few-shot
    learning has it. Several seeds were judged on the same tasks, so that their scores are crossed:
    the variance of the mean is that of the tasks' means over seeds, divided by T, plus that of the
    seeds' means over tasks, divided by S. The second has few degrees of freedom, so that it counts
    by Student's t: sqrt((1.96 s_T / sqrt(T))^2 + (t_{S-1} s_S / sqrt(S))^2).

    Args:
        scores: of each task [T], or of each seed and task [S, T].
    """
    by_seed = scores.double().reshape(-1, scores.shape[-1])
    seeds, tasks = by_seed.shape
    over_tasks = 1.96 * by_seed.mean(0).std(correction=0).item() / math.sqrt(tasks)
    if seeds == 1:
        return over_tasks
    spread = by_seed.mean(1).std(correction=1).item()
    return math.hypot(over_tasks, student_t(seeds - 1) * spread / math.sqrt(seeds))


def student_t(degrees: int) -> float:
    """The 97.5 % point of Student's t."""
    from scipy.special import stdtrit  # which scikit-learn needs; few commands have several seeds

    return float(stdtrit(degrees, 0.975))


@dataclass(frozen=True)
class Difference:
    """Mean paired difference with its 95 % interval."""

    mean: float
    interval: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes zero."""
        return abs(self.mean) > self.interval


Scores = Sequence[float] | Sequence[Sequence[float]]
"""Of each task, or of each seed and task."""


def paired_difference(first: Scores, second: Scores) -> Difference:
    """First - second, task by task, and seed by seed where both have as many.

    Args:
        first: scores of one method, by task, or by seed and task.
        second: scores of the other on the same tasks.

    Raises:
        InputError: they differ in the number of tasks.
    """
    one, other = (torch.tensor(scores, dtype=torch.float64) for scores in (first, second))
    if one.shape[-1] != other.shape[-1]:
        raise InputError(f"cannot pair {one.shape[-1]} with {other.shape[-1]} tasks")
    if one.shape != other.shape:  # of other numbers of seeds only the tasks can be paired
        one, other = (x.reshape(-1, x.shape[-1]).mean(0) for x in (one, other))
    difference = one - other
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
