"""Problems: the source of mini-batches and episodes, and the evaluation of models on tasks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
        one_joint_head: whether both heads have the same outputs, so that the joint-flow has one.
        kind: "classification", "regression" or "reinforcement"; algorithms that are configured for
            another kind are refused. None accepts all.
        test_tasks: number of fixed test tasks.
        shard_index: the shard of a training step that `samples` returns, from 0.
        shard_count: number of shards of a step, one per process.

    Example:
        >>> from omnitraining import Problem, Sinusoids
        >>> problem = Sinusoids(waves=8)
        >>> isinstance(problem, Problem), problem.example().shape
        (True, torch.Size([2, 1]))
    """

    pre_outputs: int
    meta_outputs: int
    one_joint_head: bool
    kind: str | None = None
    test_tasks: int = 600
    shard_index: int = 0
    shard_count: int = 1

    def __repr__(self) -> str:
        return f"<{self.summary}>"

    @property
    def summary(self) -> str:
        """The data of the tasks, in a line."""
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

    def check(self, model: "Model") -> None:
        """Refuse a model that cannot learn these tasks; `train` calls it first.

        Raises:
            InputError: an algorithm of the model is for another kind of problem.
        """
        task, is_used = model.metatraining.task, {"meta", "joint"} & {*model.trained_flows}
        if is_used and task is not None and self.kind not in (None, task):
            raise InputError(
                f"metatraining.task is {task!r}, but {type(self).__name__} is a problem of "
                f"{self.kind}: set it to {self.kind!r}"
            )

    @property
    def test_outputs(self) -> frozenset[int]:
        """Numbers of outputs of the test tasks."""
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
        """The data of a training step, or this process's shard of it.

        Args:
            step: counted from 0.
            random: source of all randomness, in the same state for all shards of a step.
            model: the model, whose policies act in reinforcement learning.
        """

    @abstractmethod
    def validation_scores(self, model: "Model", inference: "Inference") -> dict[str, float]:
        """Scores on the fixed validation tasks, by flow and of the ensemble; higher is better.

        The checkpoint with the best score of the ensemble is kept.

        Args:
            model: the model.
            inference: options of the prediction, as the members of the ensemble.
        """

    @abstractmethod
    def evaluate(self, model: "Model", inference: "Inference", tasks: int) -> "Evaluation":
        """Results on the fixed test tasks of every cell.

        Args:
            model: the model.
            inference: options of the prediction, as the members of the ensemble.
            tasks: number of tasks; the first ones are taken.
        """


class Supervised(Problem):
    """A problem whose data do not depend on the model, so that all flows train on the same.

    In distributed training each process draws the whole step and takes its shard, so that the
    samples of a run do not depend on the number of processes.

    Example:
        >>> import torch
        >>> from omnitraining import Sinusoids, Supervised
        >>> problem, random = Sinusoids(waves=8), torch.Generator().manual_seed(0)
        >>> isinstance(problem, Supervised), problem.minibatch(0, random).x.shape
        (True, torch.Size([50, 1]))
    """

    @property
    def sizes_of_steps(self) -> "Sequence[Supervised]":
        """Problems with each size that a training step may have; all are equally likely."""
        return (self,)

    @abstractmethod
    def minibatch(self, step: int, random: torch.Generator) -> MiniBatch:
        """Samples drawn independently from the training set.

        Args:
            step: counted from 0.
            random: source of all randomness, on the CPU.
        """

    def minibatch_in_views(self, step: int, random: torch.Generator, views: int) -> MiniBatch:
        """A mini-batch with several augmentations of each sample, x [B, views, ...].

        Args:
            step: counted from 0.
            random: source of all randomness, on the CPU.
            views: number of augmentations.

        Raises:
            InputError: the samples of this problem are not augmented.
        """
        raise InputError(
            f"{type(self).__name__} does not augment its samples, of which the backbone takes "
            f"{views} augmentations: set its own_views to false"
        )

    @abstractmethod
    def episode(self, step: int, random: torch.Generator) -> Episode:
        """A task, or several, drawn from the training set.

        Args:
            step: counted from 0.
            random: source of all randomness, on the CPU.
        """

    def episode_of_domains(self, step: int, random: torch.Generator, count: int) -> Episode:
        """Tasks of several domains of training, equally many of each.

        Args:
            step: counted from 0.
            random: source of all randomness, on the CPU.
            count: number of domains.

        Raises:
            InputError: there are fewer.
        """
        raise InputError(
            f"{type(self).__name__} has one domain of training, and metatraining needs {count}"
        )

    def episode_of_classes(self, step: int, random: torch.Generator, classes: Tensor) -> Episode:
        """Tasks of some classes of training alone, as far as these are enough.

        Args:
            step: counted from 0.
            random: source of all randomness, on the CPU.
            classes: their indices [M], on the CPU.

        Raises:
            InputError: tasks of this problem have no classes.
        """
        raise InputError(
            f"{type(self).__name__} does not draw tasks of given classes, as metatraining needs: "
            "choose another algorithm"
        )

    def samples(self, step: int, random: torch.Generator, model: "Model") -> StepData:
        """A mini-batch and an episode, or this process's shard; only what a loss is of is drawn."""
        batch, episode = MiniBatch.none(), Episode.none()
        learner, curriculum = model.metatraining, model.curriculum
        if model.needs_batch(step) and model.views == 1:
            batch = self.minibatch(step, random)
        elif model.needs_batch(step):
            batch = self.minibatch_in_views(step, random, model.views)
        if model.needs_episode(step):
            chosen = curriculum.classes(step) if curriculum is not None else None
            if chosen is not None:
                drawn = self.episode_of_classes(step, random, chosen)
            elif learner.domains == 1:
                drawn = self.episode(step, random)
            else:
                drawn = self.episode_of_domains(step, random, learner.domains)
            episode = learner.prepared(drawn, random)
        index, count = self.shard_index, self.shard_count
        return StepData(batch.shard(index, count), episode.shard(index, count))
