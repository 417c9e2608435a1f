"""Decoding of image files, Pillow images and arrays.

Images become squares in one of three ways (`Resize`): in training without regard to their aspect if
nothing else is chosen, as in the evaluation of CloserLook (Chen et al., 2019); training crops are
cut from the same squares. Unlike in CloserLook, the orientation that a camera wrote into a file is
applied. A frozen backbone gets the squares that its library makes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path
from threading import Condition
from typing import IO, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from omnitraining.datasets.listing import Item
from omnitraining.datasets.pixels import eight_bit
from omnitraining.errors import InputError

DECODING = 2
"""Version of the decoding below, to be raised with any change to the pixels."""

MAX_PIXELS = 89_478_485
"""Most pixels of an image file: above, Pillow suspects a decompression bomb."""

FORMATS = (
    *("AVIF", "BMP", "CUR", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000"),
    *("JXL", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP"),
    *("XBM", "XPM"),
)
"""Formats that are opened, if Pillow supports them: pixels only, nothing that is run."""

LONGEST = 32
"""Ratio of the longer to the shorter side above which only the center of an image is resized."""

GRAY = 128
"""Level of what a letterbox adds to an image."""

Aspect = Literal["stretch", "crop", "letterbox"]
ASPECTS: Mapping[str, str] = {
    "stretch": "aspect not kept",
    "crop": "center crop",
    "letterbox": "whole, on a gray square",
}
"""Values of `Aspect`, in words."""

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Resize:
    """How an image becomes a square of pixels.

    Args:
        aspect: ``"stretch"``: to the side, without regard to the aspect; ``"crop"``: the shorter
            side to the side, and the center of the longer one; ``"letterbox"``: the whole image,
            on a gray square.
        interpolation: of Pillow, with antialiasing.
        center: side of the central square that is cut out afterwards; None if there is no such
            crop. It determines the rounding of a crop, so that both together are the center of the
            image; a letterbox puts the whole image into it.

    Example:
        >>> from PIL import Image
        >>> Resize("crop", "bicubic")(Image.new("RGB", (30, 20)), side=8).size
        (8, 8)
    """

    aspect: Aspect = "stretch"
    interpolation: Interpolation = "bilinear"
    center: int | None = None

    def __call__(self, image: Image.Image, side: int) -> Image.Image:
        """An image of Pillow, resized to a square.

        Args:
            image: in gray or color.
            side: of the square in pixels.
        """
        method = Image.Resampling[self.interpolation.upper()]
        if self.aspect == "stretch":
            return image.resize((side, side), method)
        center = side if self.center is None else self.center
        if self.aspect == "letterbox":
            return _on_gray(image, side, center, method)
        image = _limit_aspect_ratio(image)
        width, height = image.size
        short = min(width, height)
        # The longer side is rounded down, as in torchvision.
        width, height = (side * width // short, side * height // short)
        image = image.resize((width, height), method)
        inner = round((side - center) / 2)
        left, top = (round((length - center) / 2) - inner for length in (width, height))
        return image.crop((left, top, left + side, top + side))

    @property
    def key(self) -> tuple[object, ...]:
        """The options that the pixels depend on; empty for the defaults of early versions."""
        if self.aspect == "stretch":
            return () if self.interpolation == "bilinear" else (self.aspect, self.interpolation)
        return self.aspect, self.interpolation, self.center


STRETCHED = Resize()


def _on_gray(image: Image.Image, side: int, center: int, method: Image.Resampling) -> Image.Image:
    """A gray square, with the whole image as large as fits in the center of it."""
    longer = max(image.size)
    width, height = (max(1, round(center * length / longer)) for length in image.size)
    square = Image.new("L", (side, side), GRAY).convert(image.mode)
    corner = (side - width) // 2, (side - height) // 2
    square.paste(image.resize((width, height), method), corner)
    return square


def _limit_aspect_ratio(image: Image.Image) -> Image.Image:
    """The center of an image that is very long, which would need too much memory when enlarged."""
    width, height = image.size
    most = LONGEST * min(width, height)
    left, top = ((length - min(length, most)) // 2 for length in (width, height))
    box = left, top, left + min(width, most), top + min(height, most)
    return image if box == (0, 0, width, height) else image.crop(box)


class _Budget:
    """A limit on the pixels that all threads decode at a time.

    An image above the limit waits until it is alone.
    """

    def __init__(self, whole: int) -> None:
        self._whole = self._free = whole
        self._changed = Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Wait for ``pixels`` pixels, and give them back at the end."""
        share = min(pixels, self._whole)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()


_pixels = _Budget(MAX_PIXELS)
"""All threads together need no more memory than the largest image."""


def decode(item: Item | Image.Image, side: int, resize: Resize = STRETCHED) -> NDArray[np.uint8]:
    """One image as RGB of 8 bits, [3, side, side], resized with antialiasing.

    The first frame of an animation is taken; 16 bits are scaled to 8; transparent pixels become
    white; color profiles are not applied.

    Args:
        item: an image file in one of ``FORMATS``, an array, or an image of Pillow.
        side: side of the square in pixels.
        resize: how it becomes square: bilinearly and without regard to its aspect by default.

    Raises:
        InputError: the file is missing, empty, damaged, no image, or larger than ``MAX_PIXELS``;
            the image of Pillow is truncated or closed; or the array is not uint8 [H, W, 3] or
            [H, W].

    Example:
        >>> import numpy as np
        >>> decode(np.zeros((30, 20, 3), np.uint8), side=8).shape
        (3, 8, 8)
    """
    if isinstance(item, Image.Image):
        try:
            with _pixels.reserve(item.width * item.height):
                return _square(item, side, resize)
        except Exception as error:  # as for files
            raise InputError(undecodable(error)) from error
    if not isinstance(item, Path):
        gray_or_rgb = item.ndim == 2 or (item.ndim == 3 and item.shape[2] == 3)
        if item.dtype != np.uint8 or not gray_or_rgb or not item.size:
            shape = list(item.shape)
            raise InputError(f"an array of {item.dtype} {shape}: give uint8 [H, W, 3] or [H, W]")
        with _pixels.reserve(item.shape[0] * item.shape[1]):
            return _square(Image.fromarray(item), side, resize)
    if item.is_fifo():  # reading it might never end
        raise InputError(f"{item} is a pipe: it must be an image file")
    try:
        # Not by name: Pillow maps uncompressed TIFF files that have one, and rotates them wrongly.
        with item.open("rb") as file, open_image(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            # A JPEG can be decoded at half its size or less, in a fraction of the time. It stays at
            # twice the side, so that the resizing below still does the antialiasing.
            image.draft(None, (2 * side, 2 * side))
            with _pixels.reserve(image.width * image.height):
                return _square(image, side, resize)
    except Exception as error:  # damaged files raise about any type of error in Pillow
        raise InputError(f"{item} {_decoding_error(item, error)}") from error


def open_image(file: IO[bytes]) -> Image.Image:
    """An image of Pillow that is not decoded yet, in one of ``FORMATS``.

    Pillow has others, which may run something: for PostScript it starts another program.

    Args:
        file: an open image file.

    Raises:
        UnidentifiedImageError: the file is in no such format.
    """
    return Image.open(file, formats=_formats())


@remember
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decoding_error(path: Path, error: Exception) -> str:
    """The reason why a file could not be decoded."""
    if isinstance(error, _BOMBS):
        return f"has more than {MAX_PIXELS:,} pixels: it may be a decompression bomb"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened: {error.strerror}"
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image, or of a kind that Pillow cannot read"
    return undecodable(error)


def undecodable(error: Exception) -> str:
    """The message of an image that Pillow opened but could not decode."""
    return f"cannot be decoded: {error}" if str(error) else f"cannot be decoded ({error!r})"


def _square(image: Image.Image, side: int, resize: Resize) -> NDArray[np.uint8]:
    """Pixels [3, side, side] of an image."""
    image = resize(eight_bit(image).convert("RGB"), side)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
