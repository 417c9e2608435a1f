"""The data of a training step: a mini-batch for pre-training, an episode for meta-training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from omnitraining.errors import InputError
from omnitraining.precision import in_full_precision


def channels_last(x: Tensor) -> Tensor:
    """Images [B, C, H, W] with channels last in memory, twice as fast to convolve on a CPU.

    The detour by [B, H, W, C] matters for gray images: with one channel both layouts look alike,
    and torch would take the slower one. Other tensors are returned as they are.
    """
    if x.dim() != 4 or (x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; copies to a GPU are asynchronous, from pinned memory."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


@in_full_precision
def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean feature of each class [T, N, D] of features [T, S, D] with labels [T, S]."""
    members = F.one_hot(labels, ways).to(features.dtype)  # [T, S, N]
    means: Tensor = members.mT @ features / members.sum(1).unsqueeze(-1)
    return means


@dataclass(frozen=True)
class MiniBatch:
    """Labeled samples drawn independently from the training distribution (the paper's B).

    Attributes:
        x: inputs [B, ...].
        y: targets; class indices [B], or values [B, D] in regression.

    Example:
        >>> import torch
        >>> from omnitraining import MiniBatch
        >>> batch = MiniBatch(torch.rand(4, 3, 8, 8), torch.tensor([0, 7, 7, 2]))
        >>> batch.shard(1, 2).y
        tensor([7, 2])
    """

    x: Tensor
    y: Tensor

    @classmethod
    def none(cls) -> "MiniBatch":
        """No samples, where no loss is of the mini-batch."""
        return cls(torch.empty(0, 0), torch.empty(0).long())

    def shard(self, index: int, count: int) -> "MiniBatch":
        """Part ``index`` of ``count`` equal parts, [B / count, ...]; also of no samples."""
        if count == 1 or not len(self.x):
            return self
        return MiniBatch(self.x.chunk(count)[index], self.y.chunk(count)[index])

    def with_episode(self, episode: "Episode") -> "MiniBatch":
        """This batch and then the samples of an episode, labeled by their classes of training.

        Args:
            episode: T tasks, with `Episode.classes`.

        Raises:
            InputError: the episode has no classes of training.
        """
        if episode.mixture is not None:
            raise InputError(
                "loss.pre_on_episodes is true, but the classes of these tasks are not training "
                "classes, as MetaMaxUp augments whole tasks: choose another algorithm"
            )
        of_tasks = torch.cat([episode.support_y, episode.query_y], 1)
        x, labels = episode.inputs(), episode.training_classes(of_tasks).flatten()
        if not len(self.x):
            return MiniBatch(x, labels)
        return MiniBatch(channels_last(torch.cat([self.x, x])), torch.cat([self.y, labels]))


@dataclass(frozen=True)
class Mixture:
    """Second classes of the queries of T tasks, parts of which were pasted in (CutMix).

    Attributes:
        labels: class of what was pasted into each query [T, Q].
        share: of a query that was left, and so of its first class [T].
    """

    labels: Tensor
    share: Tensor


@dataclass(frozen=True)
class Episode:
    """T tasks side by side, each with a support set of S samples and a query set of Q.

    In classification the labels of a task are 0..ways-1, and both sets are sorted by class, with
    equally many samples of each. Inputs can be indices of samples whose features are precomputed.

    Attributes:
        support_x: inputs [T, S, ...].
        support_y: labels [T, S], or values [T, S, D].
        query_x: inputs [T, Q, ...].
        query_y: labels [T, Q], or values [T, Q, D].
        ways: classes of a task; 0 where the targets are values.
        classes: the index among the training classes of each class of each task [T, N]; None at
            test.
        versions: V, the differently augmented versions of each task: tasks t, t + T / V, and so on
            are versions of one.
        domains: of training, from which equally many of the tasks are, one domain after another.
        mixture: second classes of the queries; None if each has one class.

    Example:
        Two 3-way 1-shot tasks, with two queries of each class and features of size 4:

        >>> import torch
        >>> from omnitraining import Episode
        >>> labels = torch.arange(3).repeat(2, 1)
        >>> queries = labels.repeat_interleave(2, 1)
        >>> episode = Episode(torch.rand(2, 3, 4), labels, torch.rand(2, 6, 4), queries, ways=3)
        >>> episode.inputs().shape, episode.prototypes().shape
        (torch.Size([18, 4]), torch.Size([2, 3, 4]))
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    ways: int = 0
    classes: Tensor | None = None
    versions: int = 1
    domains: int = 1
    mixture: Mixture | None = None

    @classmethod
    def none(cls) -> "Episode":
        """No tasks, where no loss is of tasks; it is false, any other episode true."""
        empty = torch.empty(0, 0)
        return cls(empty, empty.long(), empty, empty.long())

    def __bool__(self) -> bool:
        """Whether there are tasks."""
        return len(self.support_x) > 0

    def inputs(self) -> Tensor:
        """All inputs [T * (S + Q), ...] for one forward pass: by task, support before query."""
        return channels_last(torch.cat([self.support_x, self.query_x], 1).flatten(0, 1))

    def with_inputs(self, x: Tensor) -> "Episode":
        """The same tasks with other inputs, as their features.

        Args:
            x: [T * (S + Q), ...], in the order of `inputs`.
        """
        tasks, support, query = *self.support_x.shape[:2], self.query_x.shape[1]
        parts = x.unflatten(0, (tasks, support + query)).split([support, query], 1)
        return replace(self, support_x=parts[0], query_x=parts[1])

    def prototypes(self) -> Tensor:
        """Mean support sample of each class [T, N, D]; ``support_x`` must hold features."""
        return class_means(self.support_x, self.support_y, self.ways)

    def training_classes(self, labels: Tensor) -> Tensor:
        """Classes of training [T, M] of labels [T, M], which are from 0 to ways - 1.

        Raises:
            InputError: `classes` is None.
        """
        if self.classes is None:
            raise InputError(
                "these episodes do not state their training classes: this algorithm needs a "
                "problem that sets Episode.classes, as problems of classification do"
            )
        return self.classes.gather(1, labels)

    def shard(self, index: int, count: int) -> "Episode":
        """Part ``index`` of ``count`` equal parts of the queries, with the whole support set.

        A part has equally many queries of each class. The loss of the episode is the mean of the
        losses of its shards. An episode without tasks, or of one shard, is returned as it is.
        """
        if count == 1 or not self:
            return self

        def part(queries: Tensor) -> Tensor:
            by_class: Tensor = queries.unflatten(1, (max(1, self.ways), -1))
            return by_class.chunk(count, 2)[index].flatten(1, 2)

        mixture = self.mixture and replace(self.mixture, labels=part(self.mixture.labels))
        return replace(
            self, query_x=part(self.query_x), query_y=part(self.query_y), mixture=mixture
        )

    def split(self, size: int) -> list["Episode"]:
        """The tasks in parts of ``size``, for algorithms whose heads need much memory."""
        return [self[start : start + size] for start in range(0, len(self.support_x), size)]

    def __getitem__(self, tasks: slice) -> "Episode":
        """The tasks of a slice, which are no versions of each other."""
        mixed = self.mixture
        return Episode(
            self.support_x[tasks],
            self.support_y[tasks],
            self.query_x[tasks],
            self.query_y[tasks],
            self.ways,
            None if self.classes is None else self.classes[tasks],
            mixture=mixed and Mixture(mixed.labels[tasks], mixed.share[tasks]),
        )


def joined(parts: Sequence[Episode]) -> Episode:
    """The tasks of episodes of the same sizes, one after the other.

    Args:
        parts: one or more; all have classes of training, or none; and a mixture, or none.
    """
    if len(parts) == 1:
        return parts[0]

    def whole(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    mixed = [part.mixture for part in parts if part.mixture is not None]
    mixture = None
    if mixed:
        labels, share = ([getattr(one, name) for one in mixed] for name in ("labels", "share"))
        mixture = Mixture(torch.cat(labels), torch.cat(share))
    return Episode(
        whole("support_x"),
        whole("support_y"),
        whole("query_x"),
        whole("query_y"),
        parts[0].ways,
        None if parts[0].classes is None else whole("classes"),
        mixture=mixture,
    )


@dataclass(frozen=True)
class StepData:
    """The data of one training step.

    Attributes:
        batch: of the pre-flow, and of the joint-flow if ``joint`` is not given; without samples
            where no loss uses the mini-batch.
        episode: of the meta-flow, and of the joint-flow if ``joint`` is not given; without tasks
            where no loss uses tasks.
        joint: mini-batch and episode of the joint-flow, in reinforcement learning, where each flow
            collects its own trajectories.
        report: scalars to log beside the losses, by name.

    Example:
        >>> import torch
        >>> from omnitraining import Episode, MiniBatch, StepData
        >>> x, y = torch.rand(2, 3), torch.tensor([0, 1])
        >>> StepData(MiniBatch(x, y), Episode(x[None], y[None], x[None], y[None], ways=2)).joint
    """

    batch: MiniBatch
    episode: Episode
    joint: tuple[MiniBatch, Episode] | None = None
    report: Mapping[str, Tensor] = field(default_factory=dict)
