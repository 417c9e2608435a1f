"""Draws few-shot classification tasks from labeled samples, all tasks at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from omnitraining.datasets.images import LabeledImages
from omnitraining.errors import InputError


@dataclass(frozen=True)
class TaskIndices:
    """T tasks as indices of samples: support [T, N, K], query [T, N, Q]; row n is class n."""

    support: Tensor
    query: Tensor

    def with_shots(self, shots: int) -> "TaskIndices":
        """The same tasks with only the first support samples of each class."""
        return TaskIndices(self.support[:, :, :shots], self.query)


class EpisodeSampler:
    """Draws ways classes, then shots + queries samples of each, without replacement.

    Args:
        images: labeled samples.
        ways: classes per task.
        shots: support samples per class.
        queries: query samples per class.

    Raises:
        InputError: there are fewer classes than ways, or a class with too few samples.
    """

    def __init__(self, images: LabeledImages, ways: int, shots: int, queries: int) -> None:
        labels, name = images.labels, images.name
        counts = labels.bincount(minlength=len(images.classes))
        if (counts > 0).sum() < ways:
            raise InputError(f"{ways} ways asked of {name}, which has {(counts > 0).sum()} classes")
        smallest = int(counts.argmin())
        if counts[smallest] < shots + queries:
            raise InputError(
                f"class {images.classes[smallest]!r} of {name} has {counts[smallest]} images, "
                f"fewer than {shots} shots + {queries} queries = {shots + queries}"
            )
        self.ways, self.shots, self.queries = ways, shots, queries
        # A table of sample indices by class [C, longest]; rows shorter than that are masked.
        self.counts = counts
        starts = counts.cumsum(0) - counts
        columns = torch.arange(int(counts.max()))
        self.present = columns < counts.unsqueeze(1)
        slots = (starts.unsqueeze(1) + columns).clamp(max=len(labels) - 1)
        self.table = labels.argsort(stable=True)[slots]

    def draw(self, tasks: int, random: torch.Generator) -> TaskIndices:
        """Draw tasks, on the CPU, so that they do not depend on the device."""
        classes = torch.rand(tasks, len(self.counts), generator=random)
        chosen = classes.topk(self.ways).indices  # [T, N]
        keys = torch.rand(tasks, self.ways, self.table.shape[1], generator=random)
        keys = keys.masked_fill(~self.present[chosen], -1)
        columns = keys.topk(self.shots + self.queries).indices
        samples = self.table[chosen].gather(2, columns)
        return TaskIndices(samples[..., : self.shots], samples[..., self.shots :])
