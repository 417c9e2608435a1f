"""The list of images of a split, before they are decoded; every layout is read into one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Item: TypeAlias = Path | NDArray[np.uint8]
"""An image: a file, or its decoded pixels [H, W, 3] or [H, W]."""


@dataclass(frozen=True)
class Listing:
    """The images of one split of a data set.

    Attributes:
        name: name of the data set and split, for messages, as "cub-test".
        classes: names of the classes.
        items: images, as files or as arrays.
        labels: class of each image, an index into ``classes``.
    """

    name: str
    classes: tuple[str, ...]
    items: Sequence[Item]
    labels: Sequence[int]

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.items)} images of {len(self.classes)} classes>"
