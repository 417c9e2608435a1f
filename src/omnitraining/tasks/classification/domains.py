"""Training images of one or several domains, as one set."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from omnitraining.batches import to_device
from omnitraining.datasets.images import LabeledImages, consecutive_labels
from omnitraining.errors import InputError

MOVED = 2 * 1024**3  # bytes; larger sets stay in memory or in their file


class Domains:
    """The union of training domains; the labels of each domain follow the labels before it.

    A set below 2 GiB moves to the device as a whole. Of a larger one, which may be mapped from
    files larger than memory, only the images of a batch are moved.

    Args:
        parts: the images of each domain.

    Raises:
        InputError: there is no domain, or their images differ in shape.

    Attributes:
        labels: class of every image, over all domains, [M], on the CPU.
        classes_of: number of classes of each domain.
        classes: number of all classes.
        starts: index of the first image of each domain.
        device: device of fetched images.
    """

    def __init__(self, parts: Sequence[LabeledImages]) -> None:
        """Join the domains; small ones are copied into one tensor."""
        if not parts:
            raise InputError("there is no training domain: give one or more")
        first = parts[0]
        for part in parts:
            if part.images.shape[1:] != first.images.shape[1:]:
                raise InputError(
                    f"images of {part.name} are {_shape(part)}, images of {first.name} "
                    f"{_shape(first)}: training domains must have images of one shape"
                )
        self.labels = consecutive_labels(parts)
        self.classes_of = [len(part.classes) for part in parts]
        self.classes = sum(self.classes_of)
        self.starts = [*accumulate((len(part.images) for part in parts[:-1]), initial=0)]
        self.device = torch.device("cpu")
        self._images = [part.images for part in parts]
        if len(parts) > 1 and self._small:
            self._images = [torch.cat(self._images)]

    def to(self, device: torch.device) -> None:
        """Move small sets to the device, and images that are fetched later."""
        self.device = device
        if self._small:
            self._images = [images.to(device) for images in self._images]

    def fetch(self, index: Tensor) -> Tensor:
        """Images [B, C, H, W] by their indices [B], which are on the CPU."""
        if len(self._images) == 1:
            (images,) = self._images
            return to_device(images.index_select(0, to_device(index, images.device)), self.device)
        rows = torch.empty(len(index), *self._images[0].shape[1:], dtype=torch.uint8)
        for start, images in zip(self.starts, self._images, strict=True):
            of_domain = (index >= start) & (index < start + len(images))
            rows[of_domain] = images[index[of_domain] - start]
        return to_device(rows, self.device)

    def own_classes(self, domain: int, classes: Tensor | None) -> Tensor | None:
        """The classes of a domain among ``classes``, as indices within the domain.

        Args:
            domain: its index.
            classes: indices [M] over all domains; if None, it is returned.
        """
        if classes is None:
            return None
        own = classes - sum(self.classes_of[:domain])
        return own[(own >= 0) & (own < self.classes_of[domain])]

    @property
    def _small(self) -> bool:
        return sum(images.nbytes for images in self._images) < MOVED


def _shape(part: LabeledImages) -> str:
    return " x ".join(map(str, part.images.shape[1:]))
