"""The example of the demo: the first five Armenian letters, rendered as the glyphs data."""

from functools import cache
from typing import NamedTuple
from unicodedata import name

import numpy as np
from numpy.typing import NDArray

from omnitraining.datasets import glyphs

LETTERS = glyphs.classes("armenian", "test")[:5]
SHOTS, QUERIES = 5, 3


class Examples(NamedTuple):
    """A small task.

    Attributes:
        support: images [S, S], uint8, by class.
        queries: other images; the classes take turns.
    """

    support: dict[str, list[NDArray[np.uint8]]]
    queries: list[NDArray[np.uint8]]


@cache
def armenian(size: int) -> Examples:
    """Five letters: five support images of each, and three queries.

    Args:
        size: side of the square images, in pixels.
    """
    drawn = {
        f"{name(letter).split()[-1].capitalize()} {letter}": [
            *glyphs.render(letter, size, SHOTS + QUERIES, seed=0)[:, 0].numpy()
        ]
        for letter in LETTERS
    }
    support = {title: images[:SHOTS] for title, images in drawn.items()}
    queries = [images[SHOTS + turn] for turn in range(QUERIES) for images in drawn.values()]
    return Examples(support, queries)
