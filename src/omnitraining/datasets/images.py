"""Labeled images in memory or mapped from a file: the form of every image data set here."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from omnitraining.errors import InputError

_CHUNK = 1024  # images hashed or converted at once

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a gray value (ITU-R 601-2), as in Pillow."""


@dataclass(frozen=True)
class LabeledImages:
    """Images with their labels.

    Args:
        images: pixels, uint8 [M, C, H, W].
        labels: class of each image, integers [M] from 0 to ``len(classes) - 1``.
        classes: names of the classes.
        name: name of the set.
        digests: for images read from files, a hash of the files of each class.
        recipe: for generated images, a text that determines them. It identifies them in place of
            their pixels, which may differ by a little from processor to processor.

    Raises:
        InputError: the numbers of images and labels differ, or a label has no class.

    Example:
        >>> import torch
        >>> pixels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
        >>> data = LabeledImages(pixels, torch.tensor([0, 0, 1, 1]), ("cat", "dog"), "pets")
        >>> len(data.fingerprint)
        64
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    digests: tuple[str, ...] | None = None
    recipe: str = ""

    def __post_init__(self) -> None:
        labels, count = self.labels, len(self.classes)
        if len(labels) != len(self.images):
            raise InputError(f"{self.name} has {len(self.images)} images, but {len(labels)} labels")
        if len(labels) and not 0 <= labels.min() <= labels.max() < count:
            raise InputError(
                f"{self.name} has labels from {labels.min()} to {labels.max()}, but {count} classes"
            )

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.images.shape[1:]))
        count, classes = len(self.images), len(self.classes)
        return f"<{self.name}: {count} images of {classes} classes, {size}>"

    @cached_property
    def fingerprint(self) -> str:
        """Hash (sha256, hex) of images (or their recipe), labels and class names.

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


def consecutive_labels(parts: Sequence[LabeledImages]) -> Tensor:
    """Labels [M] of several sets as one: each set's classes follow the classes before it."""
    starts = accumulate((len(part.classes) for part in parts), initial=0)
    return torch.cat([part.labels + start for part, start in zip(parts, starts, strict=False)])


def concatenate(parts: Sequence[LabeledImages], name: str) -> LabeledImages:
    """Several sets of generated images as one, in memory, with the classes of all of them.

    Args:
        parts: sets with recipes.
        name: name of the union.
    """
    return LabeledImages(
        torch.cat([part.images for part in parts]),
        consecutive_labels(parts),
        tuple(known for part in parts for known in part.classes),
        name,
        recipe="\n".join(part.recipe for part in parts),
    )


def luma(pixels: Tensor) -> Tensor:
    """Gray values, uint8 [..., 1, H, W], of images in color, uint8 [..., 3, H, W]."""
    weights = torch.tensor(LUMA)[:, None, None]
    return (pixels * weights).sum(-3, keepdim=True).round().to(torch.uint8)


def gray(colored: LabeledImages) -> LabeledImages:
    """The same images in gray, uint8 [M, 1, H, W], in memory."""
    recipe = f"gray {colored.recipe}" if colored.recipe else ""
    images = torch.cat([luma(part) for part in colored.images.split(_CHUNK)])
    return replace(colored, images=images, recipe=recipe)


def rotated(images: LabeledImages) -> LabeledImages:
    """The images, and their rotations by 90, 180 and 270 degrees as further classes.

    As Vinyals et al. (2016) make 4,800 training classes of Omniglot's 1,200
    (https://arxiv.org/abs/1606.04080).

    Args:
        images: square images of C classes.

    Returns:
        Four times as many images, in memory, of 4 C classes; the rotation is in their names.

    Raises:
        InputError: the images are not square.
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
