"""Problems: the source of mini-batches and episodes, and the evaluation of a model."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omnitraining.batches import Episode, MiniBatch, StepData
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
        shard_index: the shard of a training step that `samples` returns, from 0.
        shard_count: number of shards of a step, one per process.
    """

    pre_outputs: int
    meta_outputs: int
    one_joint_head: bool
    test_tasks: int = 600
    shard_index: int = 0
    shard_count: int = 1

    @property
    def summary(self) -> str:
        """What the tasks are made of, in a line."""
        return type(self).__name__

    @property
    def shardable(self) -> Mapping[str, int]:
        """Sizes that distributed training splits, by name; empty if a step cannot be split."""
        return {}

    def shard(self, index: int, count: int) -> None:
        """Let `samples` return one of ``count`` equal shards of each training step.

        Raises:
            InputError: a size in `shardable` is no multiple of ``count``, or there is none.
        """
        if count > 1 and not self.shardable:
            raise InputError(
                f"{type(self).__name__} has no property 'shardable', which names the sizes that "
                "several processes split: train it with one process"
            )
        for name, size in self.shardable.items():
            if size % count:
                raise InputError(f"{name} is {size}: {count} processes cannot split it equally")
        self.shard_index, self.shard_count = index, count

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
    def with_test_shots(self, shots: tuple[int, ...]) -> "Problem":
        """A copy that shares the data, with other numbers of support samples per class at test.

        Raises:
            InputError: a number is out of range.
        """

    @abstractmethod
    def samples(self, step: int, random: torch.Generator, model: "Model") -> StepData:
        """What the flows of a model learn from in a step, or in this process's shard of it.

        Args:
            step: counted from 0.
            random: source of all that is drawn, the same for all shards of a step.
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

    In distributed training each process draws the whole step and takes its shard, so that the
    samples of a run do not depend on the number of processes.
    """

    @abstractmethod
    def minibatch(self, step: int, random: torch.Generator) -> MiniBatch:
        """Samples drawn independently from the training set, for a step counted from 0."""

    @abstractmethod
    def episode(self, step: int, random: torch.Generator) -> Episode:
        """A task drawn from the training set, for a step counted from 0."""

    def samples(self, step: int, random: torch.Generator, model: "Model") -> StepData:
        batch, episode = self.minibatch(step, random), self.episode(step, random)
        if self.shard_count == 1:
            return StepData(batch, episode)
        own = self.shard_index, self.shard_count
        return StepData(batch.shard(*own), episode.shard(*own))
