"""Few-shot evaluation: fixed tasks, every head, 95 % intervals, paired differences."""

import hashlib
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from omnitraining.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from omnitraining.model import Model

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Inference:
    """How a trained model predicts (paper 4.3).

    Args:
        flows: in the ensemble, as far as the model has them.
        ensemble_weights: ``"equal"``: the mean; ``"validation"``: the convex combination that does
            best on the validation tasks, chosen per number of shots and steps.
        joint_head: the new head of the joint-flow: ``"pre"`` or ``"meta"``, as the algorithm of
            that training fits it, or ``"both"``, the mean of the two (the paper is silent).
        meta_head: the new head of the meta-flow beside other flows, with the same choices. The
            paper's is ``"meta"``.
        weights: predict with the EMA ``"teacher"``, with the ``"student"`` itself, or with the
            ``"best"`` of the two, checkpoint by checkpoint, by validation score.
        policy: what the ensemble is in reinforcement learning: ``"best"``, the one flow that does
            best on the validation tasks; or ``"mean"``, the policy that acts by the mean of the
            flows' means and log standard deviations of actions.
        flip: predict an image from the mean of its features and its mirror image's, in the support
            set too. It takes twice the time, and is for classification by algorithms that do not
            adapt the backbone.

    Raises:
        InputError: a flow is named twice.

    Example:
        >>> from omnitraining import Inference
        >>> Inference(flows=("pre", "meta")).members(trained=("pre", "joint", "meta"))
        ('pre', 'meta')
    """

    flows: tuple[Literal["pre", "joint", "meta"], ...] = ("pre", "joint", "meta")
    ensemble_weights: Literal["equal", "validation"] = "equal"
    joint_head: Literal["pre", "meta", "both"] = "both"
    meta_head: Literal["pre", "meta", "both"] = "meta"
    weights: Literal["best", "teacher", "student"] = "best"
    policy: Literal["best", "mean"] = "best"
    flip: bool = False

    def __post_init__(self) -> None:
        """Refuse a flow that is named twice: it would not count twice."""
        if len({*self.flows}) < len(self.flows):
            raise InputError(f"inference.flows is {list(self.flows)}: it names a flow twice")

    @property
    def heads(self) -> tuple[Literal["pre", "meta", "both"], Literal["pre", "meta", "both"]]:
        """The heads of the joint- and of the meta-flow, for `Model.heads_of`."""
        return self.joint_head, self.meta_head

    def check(self, kind: str | None, model: "Model") -> None:
        """Refuse options that would have no effect.

        Args:
            kind: as `Problem.kind`; with None, no option is of another kind.
            model: the model to predict with.

        Raises:
            InputError: one is for another kind of problem or another algorithm, or the model has
                none of the flows.
        """
        self.members(model.trained_flows)
        if self.flip and kind not in (None, "classification"):
            raise InputError("inference.flip is true, which is for image classification")
        self.check_flip(model)
        if self.policy == "mean" and kind not in (None, "reinforcement"):
            raise InputError(
                "inference.policy is 'mean', which is for reinforcement learning: elsewhere the "
                "ensemble always is the mean of the flows' outputs"
            )
        if self.ensemble_weights == "validation" and kind == "reinforcement":
            raise InputError(
                "inference.ensemble_weights is 'validation', which is not for reinforcement "
                "learning: there inference.policy is 'best', the best flow by validation, or "
                "'mean'"
            )

    def check_flip(self, model: "Model") -> None:
        """Refuse ``flip`` where a network is adapted to each task.

        Raises:
            InputError: an algorithm does so.
        """
        if not self.flip:
            return
        for flow in model.trained_flows:
            for head in model.heads_of(flow, *self.heads):
                if not head.algorithm.needs_only_features:
                    raise InputError(
                        f"inference.flip is true, but {type(head.algorithm).__name__} adapts the "
                        "backbone to each task: flip is for algorithms that do not"
                    )

    def members(self, trained: tuple[str, ...]) -> tuple[str, ...]:
        """The flows of the ensemble in a model whose trained flows are given.

        Raises:
            InputError: there are none, or one alone where ``policy`` is the mean of several.
        """
        members = tuple(flow for flow in trained if flow in self.flows)
        if not members:
            raise InputError(
                f"inference.flows is {list(self.flows)}, but the model has only {list(trained)}"
            )
        if self.policy == "mean" and len(members) == 1:
            raise InputError(
                f"inference.policy is 'mean', but the ensemble has one flow, {members[0]!r}: "
                "choose 'best', or a method with several flows, as omni-training"
            )
        return members


def best_ensemble_weights(probabilities: Mapping[str, Tensor], labels: Tensor) -> dict[str, float]:
    """The convex combination of flows with the highest accuracy; of ties, the nearest to the mean.

    Args:
        probabilities: class probabilities [T, Q, N] by flow.
        labels: [T, Q].

    Returns:
        Weights by flow, which add up to 1.
    """
    stacked = torch.stack([*probabilities.values()], -1)
    grid = simplex_grid(len(probabilities))
    hits = torch.stack([((stacked @ w).argmax(-1) == labels).float().mean() for w in grid])
    best = grid[hits == hits.max()]
    nearest = best[(best - 1 / len(probabilities)).square().sum(1).argmin()]
    return dict(zip(probabilities, nearest.tolist(), strict=True))


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
class CellKey:
    """The benchmark and task sizes that one column of results was measured on.

    Args:
        benchmark: data set or environment; empty where a problem has only one.
        ways: classes of an episode; None outside classification.
        shots: support samples, per class in classification; None where there are none.
        steps: gradient steps of adaptation or fine-tuning; None without them.

    Example:
        >>> str(CellKey("cub", ways=5, shots=1))
        'cub 5-way 1-shot'
        >>> CellKey.parse("cub 5-shot, 10 steps")
        CellKey(benchmark='cub', ways=None, shots=5, steps=10)
    """

    benchmark: str = ""
    ways: int | None = None
    shots: int | None = None
    steps: int | None = None

    def __str__(self) -> str:
        episode = [
            self.benchmark,
            "" if self.ways is None else f"{self.ways}-way",
            "" if self.shots is None else f"{self.shots}-shot",
        ]
        steps = "" if self.steps is None else f"{self.steps} step" + "s" * (self.steps != 1)
        return ", ".join(filter(None, (" ".join(filter(None, episode)), steps)))

    @classmethod
    def parse(cls, text: str) -> "CellKey":
        """The key of a text as experiments and files of earlier versions have it.

        Args:
            text: as ``str`` makes it; also ``"K=5 10 steps"`` of version 0.1.
        """
        parts = _CELL.fullmatch(text)
        assert parts is not None  # any text is a benchmark at least
        numbers = {
            name: int(parts[name]) if parts[name] else None for name in ("ways", "shots", "steps")
        }
        if parts["k"]:
            numbers["shots"] = int(parts["k"])
        return cls(parts["benchmark"] or "", **numbers)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CellKey":
        """The key in a mapping that may have other entries too.

        Raises:
            ValueError: an entry is not what it must be.
        """
        benchmark = values.get("benchmark", "")
        numbers = {name: values.get(name) for name in ("ways", "shots", "steps")}
        if not isinstance(benchmark, str):
            raise ValueError(f"benchmark is {benchmark!r}: it must be a text")
        for name, value in numbers.items():
            if value is not None and type(value) is not int:
                raise ValueError(f"{name} is {value!r}: it must be an integer")
        return cls(benchmark, **numbers)

    def as_json(self) -> dict[str, Any]:
        """The entries that are given."""
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}

    @property
    def without_ways(self) -> "CellKey":
        """The key without the number of ways, which tables of papers leave out."""
        return replace(self, ways=None)

    def covers(self, other: "CellKey") -> bool:
        """Whether this key names another: it is equal, or names the benchmark alone."""
        if self.shots is None and self.steps is None:
            return self.benchmark == other.benchmark and self.ways in (None, other.ways)
        return self in (other, other.without_ways)


_CELL = re.compile(
    r"(?:K=(?P<k>\d+)|(?P<benchmark>.*?))??(?:(?:^| )(?P<ways>\d+)-way)?"
    r"(?:(?:^| )(?P<shots>\d+)-shot)?(?:(?:^|,? )(?P<steps>\d+) steps?)?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Cell:
    """Results in one column of a table.

    Args:
        tasks_hash: identifies the test tasks; only results on the same tasks are comparable.
        scores: per head (a flow, or ``"ensemble"``), the score of each task.

    Example:
        >>> cell = Cell("tasks", {"ensemble": [60.0, 62.0, 64.0]})
        >>> cell.mean()
        62.0
    """

    tasks_hash: str
    scores: dict[str, list[float]]

    def __repr__(self) -> str:
        means = [f"{h} {self.mean(h):.4g} ± {self.interval(h):.2g}" for h in self.scores]
        return f"<{', '.join(means)} in {len(next(iter(self.scores.values()), ()))} tasks>"

    def mean(self, head: str = ENSEMBLE) -> float:
        """Mean score over tasks."""
        return sum(self.scores[head]) / len(self.scores[head])

    def interval(self, head: str = ENSEMBLE) -> float:
        """Half-width of the 95 % interval of the mean over tasks."""
        return half_width(torch.tensor(self.scores[head]))


@dataclass(frozen=True)
class Evaluation:
    """Results of one model.

    Args:
        unit: of the scores.
        higher_is_better: direction of the score.
        cells: results by what they were measured on.

    Example:
        >>> from omnitraining import Evaluation
        >>> from omnitraining.evaluation import Cell, CellKey
        >>> key, cell = CellKey("cub", ways=5, shots=1), Cell("hash", {"pre": [60.0, 80.0]})
        >>> evaluation = Evaluation("accuracy %", higher_is_better=True, cells={key: cell})
        >>> evaluation.cells[key].mean("pre")
        70.0
    """

    unit: str
    higher_is_better: bool
    cells: dict[CellKey, Cell] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<evaluation, {str(self).replace(chr(10), '; ')}>"

    def __str__(self) -> str:
        lines = [self.unit]
        for key, cell in self.cells.items():
            means = [f"{h} {cell.mean(h):.1f} ± {cell.interval(h):.1f}" for h in cell.scores]
            lines.append(f"{key}: {', '.join(means)}")
        return "\n".join(lines)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each head of each cell: the key, the head, mean, interval, number of tasks."""
        return [
            {
                **asdict(key),
                "head": head,
                "mean": cell.mean(head),
                "interval": cell.interval(head),
                "tasks": len(scores),
            }
            for key, cell in self.cells.items()
            for head, scores in cell.scores.items()
        ]

    def to_frame(self) -> Any:
        """`rows` as a pandas DataFrame.

        Raises:
            InputError: pandas is not installed.
        """
        return as_frame(self.rows())

    def plot(self) -> "Figure":
        """A bar with its 95 % interval for each head of each cell, as a figure of matplotlib."""
        from matplotlib.figure import Figure

        heads = list(dict.fromkeys(head for cell in self.cells.values() for head in cell.scores))
        figure = Figure(figsize=(2 + len(self.cells) * max(2, len(heads)) * 0.3, 3.5))
        axis, width = figure.subplots(), 0.8 / max(1, len(heads))
        for place, head in enumerate(heads):
            held = [(at, c) for at, c in enumerate(self.cells.values()) if head in c.scores]
            axis.bar(
                [at + (place - (len(heads) - 1) / 2) * width for at, _ in held],
                [cell.mean(head) for _, cell in held],
                width,
                yerr=[cell.interval(head) for _, cell in held],
                label=head,
            )
        axis.set_xticks(range(len(self.cells)), [*map(str, self.cells)], rotation=30, ha="right")
        axis.set_ylabel(self.unit)
        axis.legend(frameon=False)
        figure.tight_layout()
        return figure

    def as_json(self) -> dict[str, Any]:
        """Values that JSON can hold; `from_json` reads them."""
        cells = [{**key.as_json(), **asdict(cell)} for key, cell in self.cells.items()]
        return {"unit": self.unit, "higher_is_better": self.higher_is_better, "cells": cells}

    @classmethod
    def from_json(cls, values: Any) -> "Evaluation":
        """The evaluation whose values `as_json` returned.

        Raises:
            ValueError: the values are not of an evaluation; the message states what is wrong.
        """
        if not isinstance(values, dict) or {*values} != {"unit", "higher_is_better", "cells"}:
            raise ValueError("it must have unit, higher_is_better and cells")
        cells = {}
        for key, own in keyed_cells(values["cells"]):
            if not {"tasks_hash", "scores"} <= {*own}:
                raise ValueError(f"{key} must have tasks_hash and scores")
            scores = own["scores"]
            if not isinstance(scores, dict) or not scores:
                raise ValueError(f"scores of {key} must be a mapping")
            lists = [
                v for v in scores.values() if isinstance(v, list) and v and all(map(_is_score, v))
            ]
            is_whole = len(lists) == len(scores) and len({*map(len, lists)}) == 1
            if ENSEMBLE not in scores or not is_whole:
                raise ValueError(f"scores of {key} must be equally many numbers for each head")
            cells[key] = Cell(str(own["tasks_hash"]), scores)
        return cls(str(values["unit"]), values["higher_is_better"] is True, cells)


def as_frame(rows: list[dict[str, Any]]) -> Any:
    """Rows as a pandas DataFrame.

    Raises:
        InputError: pandas is not installed.
    """
    try:
        pandas: Any = import_module("pandas")
    except ImportError as error:
        raise InputError("to_frame() needs pandas: pip install pandas") from error
    return pandas.DataFrame(rows)


def keyed_cells(values: Any) -> Iterator[tuple[CellKey, dict[str, Any]]]:
    """Cells of a file with their keys: of a list, or of version 0.1's mapping by texts.

    Raises:
        ValueError: they are neither, or one of them is not a mapping.
    """
    if isinstance(values, dict):
        pairs = [(CellKey.parse(name), cell) for name, cell in values.items()]
    elif isinstance(values, list) and all(isinstance(cell, dict) for cell in values):
        pairs = [(CellKey.from_json(cell), cell) for cell in values]
    else:
        raise ValueError("cells must be a list of mappings")
    for key, cell in pairs:
        if not isinstance(cell, dict):
            raise ValueError(f"{key} must be a mapping")
        yield key, cell


def _is_score(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and not math.isnan(value)


def half_width(scores: Tensor) -> float:
    """Half-width of the 95 % interval of the mean over tasks, and over seeds where there are any.

    Over tasks it is 1.96 std / sqrt(T), with the population's standard deviation, as is usual in
    few-shot learning. Several seeds were evaluated on the same tasks, so that tasks and seeds are
    crossed factors: the variance of the mean is the variance of the tasks' means over seeds,
    divided by T, plus the variance of the seeds' means over tasks, divided by S. The second has
    few degrees of freedom, so that it counts by Student's t:
    sqrt((1.96 s_T / sqrt(T))^2 + (t_{S-1} s_S / sqrt(S))^2).

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
"""Scores by task, or by seed and task."""


def paired_difference(first: Scores, second: Scores) -> Difference:
    """First - second, task by task, and seed by seed where both have equally many seeds.

    With different numbers of seeds, S and S', seeds cannot be paired. The half-width then has the
    part over tasks, and a part over seeds with one standard deviation s_S for both methods, pooled
    from all of their seeds: t_{S+S'-2} s_S sqrt(1 / S + 1 / S').

    Args:
        first: scores of one method, by task, or by seed and task.
        second: scores of the other on the same tasks.

    Raises:
        InputError: they differ in the number of tasks.
    """
    one, other = (torch.tensor(scores, dtype=torch.float64) for scores in (first, second))
    if one.shape[-1] != other.shape[-1]:
        raise InputError(f"cannot pair {one.shape[-1]} with {other.shape[-1]} tasks")
    one, other = (scores.reshape(-1, scores.shape[-1]) for scores in (one, other))
    if one.shape == other.shape:
        difference = one - other
        return Difference(difference.mean().item(), half_width(difference))
    difference = one.mean(0) - other.mean(0)
    interval = math.hypot(half_width(difference), _over_unpaired_seeds(one, other))
    return Difference(difference.mean().item(), interval)


def _over_unpaired_seeds(*methods: Tensor) -> float:
    """The part over seeds of the half-width of a difference, of scores [S, T] of two methods."""
    degrees = sum(len(scores) - 1 for scores in methods)
    squares = sum(len(scores) * scores.mean(1).var(correction=0).item() for scores in methods)
    return student_t(degrees) * math.sqrt(squares / degrees * sum(1 / len(s) for s in methods))


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
