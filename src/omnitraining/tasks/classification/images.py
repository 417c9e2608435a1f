"""Labelled images held in memory: what every image data set of this library loads to."""

import hashlib
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LabelledImages:
    """uint8 images [M, C, H, W], integer labels [M] in 0..len(classes)-1, class names, a name."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    @property
    def fingerprint(self) -> str:
        """Content hash (sha256) of images, labels and class names, as hex."""
        digest = hashlib.sha256()
        digest.update(repr((tuple(self.images.shape), self.classes)).encode())
        digest.update(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()
