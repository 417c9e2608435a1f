"""Width and height of image files, read from their headers."""

import warnings
from collections.abc import Iterable
from pathlib import Path

from omnitraining.datasets.decoding import open_image
from omnitraining.datasets.listing import Item, Listing
from omnitraining.errors import InputError

SAMPLED = 64
"""Files per listing, evenly spaced, whose size is read."""


def check_sizes(listings: Iterable[Listing], size: int, must_be_square: bool = False) -> None:
    """Warn of images that are smaller than the network's input, and so are enlarged.

    Args:
        listings: the images.
        size: side of the network's input, in pixels.
        must_be_square: read all files, and refuse images that are not square.

    Raises:
        InputError: an image that must be square is not.

    Warns:
        UserWarning: images are smaller than ``size``.
    """
    for listing in listings:
        items = listing.items
        step = 1 if must_be_square else -(-len(items) // SAMPLED)
        positions = range(0, len(items), step) if items else range(0)
        sizes = {i: sides for i in positions if (sides := side_lengths(items[i]))}
        for index, (width, height) in sizes.items():
            if must_be_square and width != height:
                which = f"{_name(items[index], index)} of {listing.name}"
                raise InputError(
                    f"{which} has {width} x {height} pixels: only squares can be rotated; set "
                    "problem.rotations to false, or crop them"
                )
        small = [index for index, sides in sizes.items() if min(sides) < size]
        if small:
            example = _name(items[small[0]], small[0])
            width, height = sizes[small[0]]
            warnings.warn(
                f"{len(small)} of {len(sizes)} images read of {listing.name} are smaller than "
                f"problem.size, {size} pixels, and are enlarged: {example} has {width} x {height}",
                stacklevel=3,
            )


def side_lengths(item: Item) -> tuple[int, int] | None:
    """Width and height of an image; None if they cannot be read, which decoding will report."""
    if not isinstance(item, Path):
        return item.shape[1], item.shape[0]
    if not item.is_file():  # reading a pipe might never end
        return None
    try:
        with item.open("rb") as file, open_image(file) as image:
            return image.size
    except Exception:  # damaged files raise about any type of error in Pillow
        return None


def _name(item: Item, index: int) -> str:
    return str(item) if isinstance(item, Path) else f"image {index}"
