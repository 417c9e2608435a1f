"""A drawing as a picture to classify."""

from typing import Any

from PIL import Image, ImageOps

from omnitraining.errors import InputError


def centered(drawn: dict[str, Any] | None) -> Image.Image:
    """The strokes of a drawing, black on white, in the middle of a square with a margin.

    Args:
        drawn: value of a sketchpad; its "composite" has the strokes on a transparent ground.

    Raises:
        InputError: the drawing is empty.
    """
    image: Image.Image | None = drawn["composite"] if drawn else None
    ink = None if image is None else _ink(image)
    box = None if ink is None else ink.getbbox()
    if ink is None or box is None:
        raise InputError("Draw something first.")
    ink = ink.crop(box)
    side = round(1.3 * max(ink.size))
    sheet = Image.new("L", (side, side))
    sheet.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    return ImageOps.invert(sheet)


def _ink(image: Image.Image) -> Image.Image:
    """The darkness of an image on white, from 0 to 255."""
    rgba = image.convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return ImageOps.invert(white.convert("L"))
