"""Images of any type and depth as pixels of 8 bits, the same for Pillow images and arrays."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from omnitraining.errors import InputError

CHANNELS = (1, 3, 4)  # gray; RGB; RGBA

_ORIENTATION = 0x0112  # EXIF tag
_ROWS = 256  # rows that are put on white at a time
_HALF = 0.5 / 255  # rounding error of floating-point pixels that rounding to 8 bits removes


def eight_bit(image: Image.Image) -> Image.Image:
    """An image in gray (L) or color (RGB) of 8 bits, upright, and white where it is transparent.

    16 bits are scaled to 8. Color profiles are not applied.

    Raises:
        InputError: its pixels have 32 bits, and so no known range.
        Exception: it cannot be decoded; damaged images raise about any type of error in Pillow.
    """
    image.load()
    # Old versions of Pillow open 16 bits of gray in PNG files as 32, and all do in PGM files.
    of_32_bits = image.mode in ("I", "F")
    of_16_bits = image.mode.startswith("I;16") or (of_32_bits and image.format in ("PNG", "PPM"))
    if of_32_bits and not of_16_bits:
        raise InputError("gray pixels of 32 bits have no known range; save it with 8 or 16 bits")
    with suppress(Exception):  # broken metadata spoil no pixels
        if image.getexif().get(_ORIENTATION, 1) != 1:  # or it would be copied
            image = ImageOps.exif_transpose(image)
    if of_16_bits:  # Pillow's own conversion would clip them
        pixels = _of_16_bits(np.asarray(image))
        pixels[np.asarray(image) == image.info.get("transparency", -1)] = 255
        return Image.fromarray(pixels)
    if image.mode == "La":  # which Pillow converts to this only
        image = image.convert("LA")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")


def check_dense(image: Tensor | NDArray[Any], name: str) -> None:
    """Refuse arrays that lack a number at some position.

    Args:
        image: one image or more.
        name: name of the images in messages.

    Raises:
        InputError: the tensor is sparse or on the meta device, or the array has masked pixels.
    """
    if isinstance(image, Tensor) and image.layout != torch.strided:
        raise InputError(f"{name}: a tensor of layout {image.layout}: give dense ones")
    if isinstance(image, Tensor) and image.is_meta:
        raise InputError(f"{name}: a tensor on the meta device holds no pixels: give a real one")
    if np.ma.is_masked(image):
        raise InputError(f"{name}: an array with masked pixels: fill them first")


def as_bytes(image: Tensor | NDArray[Any], name: str, start: int = 0) -> NDArray[np.uint8]:
    """Pixels from 0 to 255.

    Args:
        image: one image or more: integers from 0 to 255 (uint16: to 65535), floating-point numbers
            from 0 to 1, or booleans, of which true is white.
        name: name of the images in messages.
        start: number of the first image, for messages, where a part of an array is given.

    Raises:
        InputError: pixels are out of range, are no numbers, or may be of 8 bits or of 16.

    Example:
        >>> import numpy as np
        >>> as_bytes(np.array([[0.0, 1.0]]), "mine").tolist()
        [[0, 255]]
    """
    check_dense(image, name)
    if isinstance(image, Tensor) and image.dtype == torch.bfloat16:  # NumPy has none
        image = image.float()
    try:
        pixels: NDArray[Any] = (
            image.numpy(force=True) if isinstance(image, Tensor) else np.asarray(image)
        )
    except TypeError as error:
        raise InputError(f"{name}: pixels are {image.dtype}: give numbers") from error
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    if pixels.dtype == bool:
        return np.asarray(255 * pixels.astype(np.uint8), np.uint8)
    if pixels.dtype.kind not in "iuf":
        raise InputError(f"{name}: pixels are {pixels.dtype}: give numbers")
    if not pixels.size:
        return np.zeros(pixels.shape, np.uint8)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        bad = np.argwhere(~np.isfinite(pixels))[0].tolist()
        value, bad[0] = pixels[tuple(bad)], bad[0] + start
        raise InputError(f"{name}: pixel at {bad} is {value}: it must be a number")
    low, high = pixels.min(), pixels.max()
    if pixels.dtype == np.uint16:
        if 0 < high <= 255:
            raise InputError(
                f"{name}: pixels of uint16 from {low} to {high} may be of 8 bits or of 16: give "
                "uint8, or floating-point pixels from 0 to 1"
            )
        return _of_16_bits(pixels)
    of_floats = pixels.dtype.kind == "f"
    top, slack = (1, _HALF) if of_floats else (255, 0)
    if low < -slack or high > top + slack:
        kind = "floating-point pixels" if of_floats else "integer pixels"
        raise InputError(f"{name}: pixels from {low} to {high}: {kind} must be from 0 to {top}")
    return np.asarray((pixels * (255 // top)).round().clip(0, 255), np.uint8)


def channels_first(
    pixels: NDArray[np.uint8], name: str, count: int | None = None
) -> NDArray[np.uint8]:
    """Images [B, H, W], [B, H, W, C] or [B, C, H, W] as [B, C, H, W].

    Args:
        pixels: the images, with C = 1, 3 or 4.
        name: name of the images in messages.
        count: number of images in all, if these are a part.

    Raises:
        InputError: they have another shape, or one in which either axis may be the channels.
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


def _of_16_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray((pixels / np.float32(65535 / 255)).round(), np.uint8)


def _on_white(image: Image.Image) -> Image.Image:
    """The image on a white background; a few rows at a time, so that there are no large copies.

    Palettes are converted as a whole: their transparency would be lost in parts.
    """
    image = image if image.mode in ("RGBA", "LA") else image.convert("RGBA")
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, _ROWS):
        rows = image.crop((0, top, image.width, min(top + _ROWS, image.height))).convert("RGBA")
        flat.paste(Image.alpha_composite(Image.new("RGBA", rows.size, "white"), rows), (0, top))
    return flat
