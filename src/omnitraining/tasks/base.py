"""Problems: the source of mini-batches and episodes, and the evaluation of a model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omnitraining.batches import Episode, MiniBatch, Samples
from omnitraining.errors import InputError

if TYPE_CHECKING:
    from omnitraining.evaluation import Evaluation, Inference
    from omnitraining.model import Model


class Problem(ABC):
    """A distribution of training tasks, with fixed validation and test tasks.

    Attributes:
        pre_outputs: outputs of the pre-training head.
        meta_outputs: outputs of the meta-training head.
        one_joint_head: whether both heads answer the same question, so that the joint-flow needs
            only one.
        test_tasks: how many fixed test tasks there are.
        part: which share of a training step `samples` makes, from 0.
        parts: how many shares there are.
    """

    pre_outputs: int
    meta_outputs: int
    one_joint_head: bool
    test_tasks: int = 600
    part: int = 0
    parts: int = 1

    @property
    def summary(self) -> str:
        """What the tasks are made of, in a line."""
        return type(self).__name__

    @property
    def divided(self) -> Mapping[str, int]:
        """What processes share in a training step, as numbers by name; nothing if they cannot."""
        return {}

    def share(self, part: int, parts: int) -> None:
        """Make one of so many equal shares of each training step, as each of several processes.

        Raises:
            InputError: a step cannot be divided in that way.
        """
        if parts > 1 and not self.divided:
            raise InputError(
                f"{type(self).__name__} has no property 'divided', which says what several "
                "processes share: train it with one"
            )
        for name, whole in self.divided.items():
            if whole % parts:
                raise InputError(f"{name} is {whole}: {parts} processes cannot share it equally")
        self.part, self.parts = part, parts

    @property
    def test_outputs(self) -> frozenset[int]:
        """Numbers of outputs that test tasks ask for."""
        return frozenset({self.meta_outputs})

    @abstractmethod
    def example(self) -> Tensor:
        """Two inputs [2, ...], on the CPU."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the data to ``device``."""

    @abstractmethod
    def set_test_shots(self, shots: tuple[int, ...]) -> None:
        """Choose the support samples (per class) of the test tasks."""

    @abstractmethod
    def samples(self, step: int, random: torch.Generator, model: "Model") -> Samples:
        """What the flows of a model learn from in a step, or in a share of one.

        Args:
            step: counted from 0.
            random: source of all that is drawn, the same for all shares of a step.
            model: whose flows act, where samples come from acting.
        """

    @abstractmethod
    def validation_scores(self, model: "Model", inference: "Inference") -> dict[str, float]:
        """Scores on the fixed validation tasks, by flow and of the ensemble; higher is better.

        The one of the ensemble chooses the checkpoint; others are those that it needs anyway.
        """

    @abstractmethod
    def evaluate(self, model: "Model", inference: "Inference", tasks: int) -> "Evaluation":
        """Results on the first ``tasks`` fixed test tasks of every cell."""


class Supervised(Problem):
    """A problem whose samples do not depend on the model: all flows learn from the same.

    Where processes share a step, each draws all of it and takes its share, so that what a run sees
    does not depend on their number.
    """

    @abstractmethod
    def minibatch(self, step: int, random: torch.Generator) -> MiniBatch:
        """Samples drawn independently from the training set, for a step counted from 0."""

    @abstractmethod
    def episode(self, step: int, random: torch.Generator) -> Episode:
        """A task drawn from the training set, for a step counted from 0."""

    def samples(self, step: int, random: torch.Generator, model: "Model") -> Samples:
        batch, episode = self.minibatch(step, random), self.episode(step, random)
        if self.parts == 1:
            return Samples(batch, episode)
        own = self.part, self.parts
        return Samples(batch.share(*own), episode.share(*own))
