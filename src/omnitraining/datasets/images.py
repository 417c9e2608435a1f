"""Labeled images in memory, or mapped to it: what every image data set here loads to."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from omnitraining.errors import InputError

_CHUNK = 1024  # images hashed or converted at once

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a gray level (ITU-R 601-2)."""


@dataclass(frozen=True)
class LabeledImages:
    """uint8 images [M, C, H, W], integer labels [M] in 0..len(classes)-1, class names, a name.

    Args:
        images: pixels.
        labels: class of each image.
        classes: names.
        name: of the whole.
        digests: of images read from files, a hash of the files of each class.
        recipe: of generated images, what decides them; it identifies them in place of their pixels,
            which may differ by a few levels from processor to processor.

    Raises:
        InputError: there is not one label per image, or a label has no class.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    digests: tuple[str, ...] | None = None
    recipe: str = ""

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
        """Content hash (sha256) of images (or their recipe), labels and class names, as hex.

        Reads every pixel, once and in chunks: images may be mapped from a file larger than memory.
        """
        digest = hashlib.sha256()
        digest.update(repr((tuple(self.images.shape), self.classes)).encode())
        if self.recipe:
            digest.update(self.recipe.encode())
        else:
            for chunk in self.images.split(_CHUNK):
                digest.update(chunk.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()


def gray(colored: LabeledImages) -> LabeledImages:
    """The same images in gray levels, uint8 [M, 1, H, W], in memory."""
    weights = torch.tensor(LUMA)[:, None, None]
    parts = [
        (part * weights).sum(1, keepdim=True).round().to(torch.uint8)
        for part in colored.images.split(_CHUNK)
    ]
    recipe = f"gray {colored.recipe}" if colored.recipe else ""
    return replace(colored, images=torch.cat(parts), recipe=recipe)


def rotated(images: LabeledImages) -> LabeledImages:
    """Images and classes as they are, then rotated by 90, 180 and 270 degrees as further classes.

    As Vinyals et al. (2016) make 4,800 training classes of Omniglot's 1,200.

    Args:
        images: square ones, of C classes.

    Returns:
        Four times as many images, in memory, of 4 C classes; the rotation is in their names.
    """
    if images.images.shape[2] != images.images.shape[3]:
        shape = " x ".join(map(str, images.images.shape[2:]))
        raise InputError(f"{images.name} has images of {shape} pixels: only squares are rotated")
    turns, classes = range(4), len(images.classes)
    return LabeledImages(
        torch.cat([images.images.rot90(turn, (2, 3)) for turn in turns]),
        torch.cat([images.labels + turn * classes for turn in turns]),
        tuple(
            f"{name} rotated {90 * turn}" if turn else name
            for turn in turns
            for name in images.classes
        ),
        images.name,
        images.digests and images.digests * 4,
        f"rotated {images.recipe}" if images.recipe else "",
    )
