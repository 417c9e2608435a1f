"""The example of the demo: classes that the shipped models were not trained on, drawn on the spot.

A model of gray images gets five Armenian letters, rendered as the glyphs data; a model of color
images gets five kinds of drawn scenes, since no photograph is shipped.
"""

from functools import cache
from typing import NamedTuple
from unicodedata import name

from PIL import Image

from omnitraining.datasets import glyphs
from omnitraining.demo import scenes

LETTERS = glyphs.classes("armenian", "test")[:5]
SHOTS, QUERIES = 5, 3  # of each class


class Examples(NamedTuple):
    """A small task.

    Attributes:
        words: what it is, in a sentence.
        support: images by class.
        queries: groups of other images, each with one image of every class.
    """

    words: str
    support: dict[str, list[Image.Image]]
    queries: list[list[Image.Image]]


@cache
def example(channels: int, size: int) -> Examples:
    """The example for a model: five support images of each of five classes, and three queries.

    Args:
        channels: of the model's images: 1 (gray) or 3 (red, green, blue).
        size: side of letters in pixels, as of the model's images.
    """
    if channels == 1:
        return _task("Five Armenian letters, five pictures of each.", _letters(size))
    return _task(
        "Five kinds of scenes, five pictures of each, drawn by this program: they show how the "
        "page works. Photographs are harder.",
        {kind: scenes.draw(kind, SHOTS + QUERIES) for kind in scenes.KINDS},
    )


def _letters(size: int) -> dict[str, list[Image.Image]]:
    return {
        f"{name(letter).split()[-1].capitalize()} {letter}": [
            Image.fromarray(pixels)
            for pixels in glyphs.render(letter, size, SHOTS + QUERIES, seed=0)[:, 0].numpy()
        ]
        for letter in LETTERS
    }


def _task(words: str, drawn: dict[str, list[Image.Image]]) -> Examples:
    support = {title: images[:SHOTS] for title, images in drawn.items()}
    # From the last on: a desert of the first group is rejected, as one in twenty known images is.
    turns = reversed(range(QUERIES))
    queries = [[images[SHOTS + turn] for images in drawn.values()] for turn in turns]
    return Examples(words, support, queries)
