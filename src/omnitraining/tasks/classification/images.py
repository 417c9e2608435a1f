"""Labelled images in memory, or mapped to it: what every image data set here loads to."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from omnitraining.errors import InputError

_CHUNK = 1024  # images hashed at once


@dataclass(frozen=True)
class LabelledImages:
    """uint8 images [M, C, H, W], integer labels [M] in 0..len(classes)-1, class names, a name.

    Raises:
        InputError: there is not one label per image, or a label has no class.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        labels, known = self.labels, len(self.classes)
        if len(labels) != len(self.images):
            raise InputError(f"{self.name} has {len(self.images)} images, but {len(labels)} labels")
        if len(labels) and not 0 <= labels.min() <= labels.max() < known:
            raise InputError(
                f"{self.name} has labels from {labels.min()} to {labels.max()}, but {known} classes"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Content hash (sha256) of images, labels and class names, as hex.

        Reads every pixel, once and in chunks: images may be mapped from a file larger than memory.
        """
        digest = hashlib.sha256()
        digest.update(repr((tuple(self.images.shape), self.classes)).encode())
        for chunk in self.images.split(_CHUNK):
            digest.update(chunk.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()
