"""Handwritten digits as a test domain: the 1797 scans that come with scikit-learn.

They are the test part of the UCI "Optical Recognition of Handwritten Digits" set: 8 x 8 counts of
ink, 0 to 16. Here they are rendered like most images of :mod:`glyphs`: dark ink on light paper,
with the middle values of its gray ranges, and a margin around the digit.
"""

import torch
import torch.nn.functional as F

from omnitraining.datasets.images import LabeledImages

_PAPER, _CONTRAST = 0.8, 0.5
_EXTENT = 0.8  # height of a digit, as part of the image; the scans have no margin above or below


def load(*, size: int = 32) -> LabeledImages:
    """All digits, uint8 [1797, 1, size, size], 174 to 183 of each of the ten classes.

    Args:
        size: side of the images in pixels.

    Raises:
        ValueError: the size is below 8, the side of the scans.
    """
    if size < 8:
        raise ValueError(f"size must be >= 8, got {size}")
    # Importing scikit-learn takes seconds, so it is imported only where the digits are used.
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    scans = load_digits()
    ink = torch.from_numpy(scans.images).float()[:, None] / 16
    inner = round(_EXTENT * size)
    ink = F.interpolate(ink, (inner, inner), mode="bicubic", align_corners=False).clamp(0, 1)
    before = (size - inner) // 2
    after = size - inner - before
    ink = F.pad(ink, (before, after, before, after))
    images = ((_PAPER - _CONTRAST * ink) * 255).round().to(torch.uint8)
    labels = torch.from_numpy(scans.target).long()
    return LabeledImages(images, labels, tuple("0123456789"), "digits")
