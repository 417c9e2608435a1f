"""Sampling of few-shot classification tasks from labeled images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from omnitraining.datasets.images import LabeledImages
from omnitraining.errors import InputError


@dataclass(frozen=True)
class TaskIndices:
    """T tasks as indices of images.

    Attributes:
        support: support images, [T, N, K]; row n is class n.
        query: query images, [T, N, Q].
    """

    support: Tensor
    query: Tensor

    def with_shots(self, shots: int) -> "TaskIndices":
        """The same tasks with only the first ``shots`` support images of each class."""
        return TaskIndices(self.support[:, :, :shots], self.query)

    def with_copies(self, copies: int, images: int) -> "TaskIndices":
        """The same tasks with copies of each support image in its place.

        Args:
            copies: how many; the tasks are unchanged if 0.
            images: number of images, whose copies follow them, all images once after another.
        """
        if not copies:
            return self
        offsets = images * torch.arange(1, copies + 1)
        return TaskIndices((self.support[..., None] + offsets).flatten(2), self.query)


class EpisodeSampler:
    """Draws the classes of a task, then support and query images of each, without replacement.

    Args:
        images: labeled images.
        ways: classes per task.
        shots: support images per class.
        queries: query images per class.

    Raises:
        InputError: there are fewer classes than ways, or a class with too few images.

    Example:
        >>> import torch
        >>> pixels = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
        >>> data = LabeledImages(pixels, torch.arange(40) % 5, tuple("abcde"), "letters")
        >>> sampler = EpisodeSampler(data, ways=3, shots=1, queries=2)
        >>> tasks = sampler.draw(4, torch.Generator().manual_seed(0))
        >>> tasks.support.shape, tasks.query.shape
        (torch.Size([4, 3, 1]), torch.Size([4, 3, 2]))
    """

    def __init__(self, images: LabeledImages, ways: int, shots: int, queries: int) -> None:
        """Index the images by class."""
        labels, name = images.labels, images.name
        counts = labels.bincount(minlength=len(images.classes))
        if (counts > 0).sum() < ways:
            raise InputError(f"{name} has {(counts > 0).sum()} classes, fewer than {ways} ways")
        smallest = int(counts.argmin())
        if counts[smallest] < shots + queries:
            raise InputError(
                f"class {images.classes[smallest]!r} of {name} has {counts[smallest]} images, "
                f"fewer than {shots} shots + {queries} queries = {shots + queries}"
            )
        self.ways, self.shots, self.queries = ways, shots, queries
        # Indices of images by class [C, largest class]; shorter rows are masked.
        self.counts = counts
        starts = counts.cumsum(0) - counts
        columns = torch.arange(int(counts.max()))
        self.present = columns < counts.unsqueeze(1)
        slots = (starts.unsqueeze(1) + columns).clamp(max=len(labels) - 1)
        self.table = labels.argsort(stable=True)[slots]

    def draw(
        self, tasks: int, random: torch.Generator, classes: Tensor | None = None
    ) -> TaskIndices:
        """Draw tasks.

        Args:
            tasks: number of tasks.
            random: source of all randomness, on the CPU, so that tasks do not depend on the device.
            classes: indices [M] of the classes that tasks are drawn from; all if None. Other
                classes are drawn too only if these are fewer than ways.
        """
        order = torch.rand(tasks, len(self.counts), generator=random)
        if classes is not None:
            order[:, classes] += 1
        chosen = order.topk(self.ways).indices  # [T, N]
        keys = torch.rand(tasks, self.ways, self.table.shape[1], generator=random)
        keys = keys.masked_fill(~self.present[chosen], -1)
        columns = keys.topk(self.shots + self.queries).indices
        samples = self.table[chosen].gather(2, columns)
        return TaskIndices(samples[..., : self.shots], samples[..., self.shots :])
