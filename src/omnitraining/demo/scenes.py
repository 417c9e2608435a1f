"""Drawn scenes in color, each a little different: the example for models of photographs."""

import math
import random
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

SIDE = 192  # pixels
FINE = 2  # pixels of the drawing on one of the image, for smooth edges
SIZE = SIDE * FINE

Color: TypeAlias = tuple[int, int, int]
Paint: TypeAlias = Callable[[Image.Image, random.Random], None]


def draw(kind: str, count: int) -> list[Image.Image]:
    """Images of a kind of scene, always the same ones.

    Args:
        kind: one of `KINDS`.
        count: number of images.
    """
    return [_image(KINDS[kind], random.Random(f"{kind} {number}")) for number in range(count)]


def _image(paint: Paint, chance: random.Random) -> Image.Image:
    image = Image.new("RGB", (SIZE, SIZE))
    paint(image, chance)
    light = ImageEnhance.Brightness(image).enhance(chance.uniform(0.75, 1.1))
    return ImageEnhance.Color(light).enhance(chance.uniform(0.6, 1.1)).resize((SIDE, SIDE))


def _beach(image: Image.Image, chance: random.Random) -> None:
    """Sun, sea, sand and a parasol."""
    horizon, shore = chance.uniform(0.3, 0.45), chance.uniform(0.6, 0.75)
    _sky(image, (70, 150, 225), (200, 230, 245))
    pen = ImageDraw.Draw(image)
    _disc(pen, chance.uniform(0.1, 0.9), chance.uniform(0.08, 0.22), 0.07, (255, 240, 150))
    _below(pen, [horizon, horizon], (25, 110, 160))
    phase = chance.uniform(0, 6)
    _below(pen, [shore + 0.02 * math.sin(phase + x / 3) for x in range(21)], (235, 210, 150))
    x, y = chance.uniform(0.25, 0.75), chance.uniform(0.6, 0.75)
    _line(pen, (x, y), (x, y + 0.22), 0.012, (120, 80, 50))
    box = [SIZE * value for value in (x - 0.16, y - 0.13, x + 0.16, y + 0.15)]
    pen.pieslice(box, 180, 360, fill=chance.choice([(210, 50, 50), (240, 140, 30), (250, 220, 60)]))


def _forest(image: Image.Image, chance: random.Random) -> None:
    """Firs on a meadow, the nearer ones larger."""
    _sky(image, (150, 190, 215), (225, 235, 230))
    pen = ImageDraw.Draw(image)
    _below(pen, [chance.uniform(0.55, 0.65), chance.uniform(0.55, 0.65)], (70, 110, 50))
    for depth in np.linspace(0, 1, 16):
        x, foot = chance.uniform(0, 1), 0.62 + 0.33 * depth
        height, green = chance.uniform(0.3, 0.42) * (0.7 + 0.6 * depth), chance.randint(55, 105)
        _line(pen, (x, foot - 0.05), (x, foot), 0.03, (80, 55, 35))
        for level in range(3):
            top, half = foot - height * (1 - 0.22 * level), height * (0.14 + 0.07 * level)
            corners = [(x, top), (x - half, top + height * 0.42), (x + half, top + height * 0.42)]
            _area(pen, corners, (25, green, 45))


def _desert(image: Image.Image, chance: random.Random) -> None:
    """Dunes and cacti under a pale sky."""
    _sky(image, (235, 190, 140), (250, 225, 180))
    pen = ImageDraw.Draw(image)
    for level, color in enumerate([(215, 160, 95), (200, 135, 70), (180, 110, 55)]):
        phase, height = chance.uniform(0, 6), 0.5 + 0.15 * level
        _below(pen, [height + 0.06 * math.sin(phase + x / 4) for x in range(21)], color)
    for _ in range(2):
        x, foot, size = (
            chance.uniform(0.1, 0.9),
            chance.uniform(0.7, 0.95),
            chance.uniform(0.7, 1.1),
        )
        for side, low, high in ((0, 0.0, 0.4), (-0.09, 0.15, 0.3), (0.09, 0.2, 0.36)):
            ends = (x + side * size, foot - high * size), (x + side * size, foot - low * size)
            _line(pen, *ends, 0.045 * size, (50, 105, 60))
            _line(pen, ends[1], (x, foot - low * size), 0.045 * size, (50, 105, 60))


def _mountains(image: Image.Image, chance: random.Random) -> None:
    """Peaks with snow above a lake."""
    _sky(image, (90, 140, 200), (205, 220, 235))
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        x, top, half = chance.uniform(0, 1), chance.uniform(0.12, 0.35), chance.uniform(0.3, 0.45)
        gray = chance.randint(90, 135)
        _area(pen, [(x, top), (x - half, 0.72), (x + half, 0.72)], (gray, gray, gray + 15))
        cap = 0.3 * half
        snow = [(x, top), (x - cap, top + 0.3 * (0.72 - top)), (x, top + 0.2 * (0.72 - top))]
        _area(pen, [*snow, (x + cap, top + 0.3 * (0.72 - top))], (245, 248, 252))
    _below(pen, [0.7, 0.7], (65, 95, 70))
    _below(pen, [chance.uniform(0.74, 0.82)] * 2, (80, 130, 160))


def _city(image: Image.Image, chance: random.Random) -> None:
    """Towers with lit windows under the moon."""
    _sky(image, (10, 12, 40), (50, 45, 90))
    pen = ImageDraw.Draw(image)
    _disc(pen, chance.uniform(0.1, 0.9), chance.uniform(0.08, 0.2), 0.05, (240, 240, 220))
    left = -0.05
    while left < 1:
        width, top, dark = (
            chance.uniform(0.1, 0.2),
            chance.uniform(0.25, 0.7),
            chance.randint(15, 45),
        )
        _area(pen, [(left, top), (left + width, top), (left + width, 1), (left, 1)], (dark,) * 3)
        for x in np.arange(left + 0.02, left + width - 0.03, 0.04):
            for y in np.arange(top + 0.03, 0.97, 0.055):
                if chance.random() < 0.55:
                    box = [SIZE * value for value in (x, y, x + 0.02, y + 0.03)]
                    pen.rectangle(box, fill=(250, chance.randint(190, 230), 120))
        left += width + 0.01


KINDS: dict[str, Paint] = {
    "beach": _beach,
    "forest": _forest,
    "desert": _desert,
    "mountains": _mountains,
    "city at night": _city,
}
"""The scenes by name."""


def _sky(image: Image.Image, top: Color, bottom: Color) -> None:
    """Fill an image with a vertical gradient."""
    share = np.linspace(0, 1, SIZE)[:, None, None]
    column = (1 - share) * np.array(top) + share * np.array(bottom)
    image.paste(Image.fromarray(np.repeat(column, SIZE, 1).astype(np.uint8)))


def _area(pen: ImageDraw.ImageDraw, corners: list[tuple[float, float]], color: Color) -> None:
    pen.polygon([(SIZE * x, SIZE * y) for x, y in corners], fill=color)


def _below(pen: ImageDraw.ImageDraw, heights: list[float], color: Color) -> None:
    """Fill what is below a line of heights at equal distances."""
    line = [(index / (len(heights) - 1), height) for index, height in enumerate(heights)]
    _area(pen, [*line, (1, 1), (0, 1)], color)


def _line(
    pen: ImageDraw.ImageDraw,
    start: tuple[float, float],
    end: tuple[float, float],
    width: float,
    color: Color,
) -> None:
    points = [(SIZE * x, SIZE * y) for x, y in (start, end)]
    pen.line(points, fill=color, width=round(SIZE * width))


def _disc(pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, color: Color) -> None:
    pen.ellipse([SIZE * v for v in (x - radius, y - radius, x + radius, y + radius)], fill=color)
