"""Toy data: tasks and problems that small networks solve in a second."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import repeat

import torch
from torch import Tensor

from omnitraining.backbones import MLP
from omnitraining.batches import Episode, MiniBatch
from omnitraining.evaluation import ENSEMBLE, Evaluation, Inference
from omnitraining.model import Model, OmniLoss, build_model
from omnitraining.tasks.base import Problem, Supervised

INPUTS = 6


class Toy(Supervised):
    """Classes are points in the first two of six inputs; the other four are noise.

    In regression the targets are those points.

    Attributes:
        scores: of the validations to come.
        nan_from: step from which inputs of mini-batches are NaN.
    """

    def __init__(self, regression: bool, classes: int = 8, ways: int = 3) -> None:
        self.regression, self.one_joint_head, self.ways = regression, regression, ways
        self.scores: Iterator[float] = repeat(0.0)
        self.nan_from: float = math.inf
        self.pre_outputs = 2 if regression else classes
        self.meta_outputs = 2 if regression else ways
        angles = torch.arange(classes) * 2 * torch.pi / classes
        self.points = 2 * torch.stack([angles.sin(), angles.cos()], 1)

    def example(self) -> Tensor:
        return torch.zeros(2, INPUTS)

    def to(self, device: torch.device) -> None:
        self.points = self.points.to(device)

    def with_test_shots(self, shots: tuple[int, ...]) -> Problem:
        raise NotImplementedError

    def inputs(self, classes: Tensor, random: torch.Generator) -> Tensor:
        x = torch.randn(*classes.shape, INPUTS, generator=random)
        x[..., :2] = 0.1 * x[..., :2] + self.points[classes]
        return x

    def minibatch(self, step: int, random: torch.Generator) -> MiniBatch:
        classes = torch.randint(len(self.points), (32,), generator=random)
        x = self.inputs(classes, random)
        x = x * math.nan if step >= self.nan_from else x
        return MiniBatch(x, self.points[classes] if self.regression else classes)

    def episode(self, step: int, random: torch.Generator, tasks: int = 1) -> Episode:
        """Three shots and four queries of each class."""
        chosen = torch.rand(tasks, len(self.points), generator=random).argsort(1)[:, : self.ways]
        parts = []
        for count in (3, 4):
            classes = chosen.repeat_interleave(count, dim=1)
            labels = torch.arange(self.ways).repeat_interleave(count).expand(tasks, -1)
            y = self.points[classes] if self.regression else labels
            parts += [self.inputs(classes, random), y]
        if self.regression:
            return Episode(*parts)
        return Episode(*parts, ways=self.ways, classes=chosen)

    def validation_scores(self, model: Model, inference: Inference) -> dict[str, float]:
        return {ENSEMBLE: next(self.scores)}

    def evaluate(self, model: Model, inference: Inference, tasks: int) -> Evaluation:
        return Evaluation("nothing", higher_is_better=True)


def toy_model(distill_weight: float = 0.0) -> tuple[Model, Toy]:
    """Three flows for classification, and their problem."""
    problem, loss = Toy(regression=False), OmniLoss(distill_weight=distill_weight)
    torch.manual_seed(0)
    model = build_model("omni-training", partial(MLP, INPUTS, (8,)), problem, loss=loss)
    return model, problem
