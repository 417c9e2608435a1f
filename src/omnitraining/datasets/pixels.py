"""What people call an image, in levels of 8 bits: one meaning for Pillow images and arrays."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from omnitraining.errors import InputError

CHANNELS = (1, 3, 4)  # gray; red, green, blue; and those with opacity

_ORIENTATION = 0x0112  # in what a camera writes into a file
_ROWS = 256  # of an image that are laid on white at a time
_HALF = 0.5 / 255  # a rounding error of floating-point levels, which leaves the level as it is


def eight_bit(image: Image.Image) -> Image.Image:
    """An image in gray (L) or color (RGB) of 8 bits, upright, and white where it is transparent.

    16 bits are scaled to 8. Color profiles are not applied.

    Raises:
        InputError: its levels have no known range.
        Exception: it cannot be decoded; damaged images raise about any type of error in Pillow.
    """
    image.load()
    # Old versions of Pillow open 16 bits of gray in PNG files as 32, and all do in PGM files.
    of_32_bits = image.mode in ("I", "F")
    of_16_bits = image.mode.startswith("I;16") or (of_32_bits and image.format in ("PNG", "PPM"))
    if of_32_bits and not of_16_bits:
        raise InputError("gray levels of 32 bits have no known range; save it with 8 or 16 bits")
    with suppress(Exception):  # broken metadata spoil no pixels
        if image.getexif().get(_ORIENTATION, 1) != 1:  # or it would be copied
            image = ImageOps.exif_transpose(image)
    if of_16_bits:  # which Pillow's own conversion clips
        levels = _of_16_bits(np.asarray(image))
        levels[np.asarray(image) == image.info.get("transparency", -1)] = 255
        return Image.fromarray(levels)
    if image.mode == "La":  # which Pillow converts to this only
        image = image.convert("LA")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")


def check_dense(image: Tensor | NDArray[Any], name: str) -> None:
    """Refuse arrays without a number in each place.

    Raises:
        InputError: the tensor is sparse or on the meta device, or the array has masked levels.
    """
    if isinstance(image, Tensor) and image.layout != torch.strided:
        raise InputError(f"{name}: a tensor of layout {image.layout}: give dense ones")
    if isinstance(image, Tensor) and image.is_meta:
        raise InputError(f"{name}: a tensor on the meta device holds no levels: give real ones")
    if np.ma.is_masked(image):
        raise InputError(f"{name}: an array with masked levels: fill them first")


def as_bytes(image: Tensor | NDArray[Any], name: str, start: int = 0) -> NDArray[np.uint8]:
    """An array of images in levels from 0 to 255.

    Whole numbers are levels from 0 to 255, those of uint16 from 0 to 65535, floating-point numbers
    from 0 to 1; true is white.

    Args:
        image: one or more.
        name: what they are called in messages.
        start: number of the first, of a part of an array.

    Raises:
        InputError: levels are out of range, are no numbers, or may be of 8 bits or of 16.
    """
    check_dense(image, name)
    if isinstance(image, Tensor) and image.dtype == torch.bfloat16:  # which NumPy lacks
        image = image.float()
    try:
        levels: NDArray[Any] = (
            image.numpy(force=True) if isinstance(image, Tensor) else np.asarray(image)
        )
    except TypeError as error:
        raise InputError(f"{name}: levels are {image.dtype}: give numbers") from error
    if levels.dtype == np.uint8:
        return np.asarray(levels, np.uint8)
    if levels.dtype == bool:
        return np.asarray(255 * levels.astype(np.uint8), np.uint8)
    if levels.dtype.kind not in "iuf":
        raise InputError(f"{name}: levels are {levels.dtype}: give numbers")
    if not levels.size:
        return np.zeros(levels.shape, np.uint8)
    if levels.dtype.kind == "f" and not np.isfinite(levels).all():
        bad = np.argwhere(~np.isfinite(levels))[0].tolist()
        value, bad[0] = levels[tuple(bad)], bad[0] + start
        raise InputError(f"{name}: level at {bad} is {value}: it must be a number")
    low, high = levels.min(), levels.max()
    if levels.dtype == np.uint16:
        if 0 < high <= 255:
            raise InputError(
                f"{name}: levels of uint16 from {low} to {high} may be of 8 bits or of 16: give "
                "uint8, or floating-point levels from 0 to 1"
            )
        return _of_16_bits(levels)
    of_floats = levels.dtype.kind == "f"
    top, slack = (1, _HALF) if of_floats else (255, 0)
    if low < -slack or high > top + slack:
        kind = "floating-point levels are from 0 to 1" if of_floats else "levels are from 0 to 255"
        raise InputError(f"{name}: levels from {low} to {high}: {kind}")
    return np.asarray((levels * (255 // top)).round().clip(0, 255), np.uint8)


def channels_first(
    pixels: NDArray[np.uint8], name: str, count: int | None = None
) -> NDArray[np.uint8]:
    """Images [B, H, W], [B, H, W, C] or [B, C, H, W] as [B, C, H, W].

    Args:
        pixels: the images.
        name: what they are called in messages.
        count: how many there are in all, if these are a part.

    Raises:
        InputError: they are neither, or may be both.
    """
    if pixels.ndim == 3:
        return np.expand_dims(pixels, 1)
    if pixels.ndim == 4 and pixels.shape[1] in CHANNELS and pixels.shape[3] not in CHANNELS:
        return pixels
    if pixels.ndim == 4 and pixels.shape[3] in CHANNELS and pixels.shape[1] not in CHANNELS:
        return np.moveaxis(pixels, 3, 1)
    raise InputError(
        f"{name} of shape {[count or len(pixels), *pixels.shape[1:]]}: give [B, H, W], "
        "[B, H, W, C] or [B, C, H, W] with C = 1, 3 or 4"
    )


def _of_16_bits(levels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray((levels / np.float32(65535 / 255)).round(), np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    """What is transparent becomes white; a few rows at a time, so that there are no large copies.

    Palettes are converted as a whole: what they say of transparency is lost where they are cut.
    """
    image = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    made = Image.new("RGB", image.size)
    for top in range(0, image.height, _ROWS):
        rows = image.crop((0, top, image.width, min(top + _ROWS, image.height))).convert("RGBA")
        made.paste(Image.alpha_composite(Image.new("RGBA", rows.size, "white"), rows), (0, top))
    return made
