"""Characters of five scripts, rendered from the typefaces that matplotlib bundles.

A class is a character, and a domain is a script. The images of a class differ in typeface (and so
in weight and slant), size, rotation, shear, warp, stroke width, sharpness, smudges, gray of ink and
paper, polarity and noise. Nothing is downloaded. ``glyphs.json`` holds the classes of each split;
``tools/glyph_classes.py`` wrote it and documents the rules.

The seed determines the images, up to rounding: every image has its own generator, seeded by (seed,
code point, instance), so no class depends on the others. On another processor, or with another
version of Pillow, single pixels may differ by a few 255ths; so tasks are identified by the recipe
of the images and not by their pixels. Images are rendered once and then read from a cache, whose
file name is a hash of all that they depend on.
"""

import hashlib
import json
import math
import zipfile
from functools import cache as remember
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from omnitraining.datasets.caching import cache_folder
from omnitraining.datasets.images import LabeledImages
from omnitraining.io.files import open_atomic
from omnitraining.io.terminal import tracked

RENDERING = 2
"""Version of the rendering below, to be raised with any change to the pixels."""

FACES = tuple(
    [f"DejaVu{family}{style}" for family in ("Sans", "SansMono")
     for style in ("", "-Bold", "-Oblique", "-BoldOblique")]
    + [f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")]
    + [f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")]
)  # fmt: skip
"""The bundled typefaces for text. The others hold mathematics, single sizes, or ASCII only."""

FONT_PIXELS = 64
"""Font size of the drawings that images are sampled from."""

_COARSE = 4  # knots per side of the smooth warp
_STREAKS = 3  # most smudges per image


def load(
    script: str,
    split: str,
    *,
    size: int = 32,
    instances: int = 30,
    seed: int = 0,
    cache: Path | None = None,
) -> LabeledImages:
    """Rendered characters of one script and split, from the cache if they are there.

    Args:
        script: ``latin``, ``greek``, ``cyrillic``, ``georgian`` or ``armenian``.
        split: ``train``, ``validation`` or ``test``; only Latin has the first two.
        size: side of the square images, in pixels.
        instances: images per class.
        seed: seed of all randomness.
        cache: folder for rendered images; by default ``$OMNITRAINING_CACHE``, or else
            ``~/.cache/omnitraining``.

    Returns:
        Images [classes * instances, 1, size, size], sorted by class.

    Raises:
        ValueError: there is no such script or split, or a size or number is too small.
        InputError: the images cannot be written to the cache.
    """
    characters = classes(script, split)
    if size < 8 or instances < 1:
        raise ValueError(f"size must be >= 8 and instances >= 1, got {size} and {instances}")
    key = [RENDERING, script, split, characters, size, instances, seed]
    import matplotlib  # which takes a while, and few problems need

    versions = [matplotlib.__version__, PIL.__version__]
    digest = hashlib.sha256(json.dumps([*versions, *key]).encode()).hexdigest()
    path = cache_folder(cache) / f"glyphs-{script}-{split}-{digest[:16]}.npz"
    shape = (len(characters) * instances, 1, size, size)

    images = _read(path, shape)
    if images is None:
        tracker = tracked(characters, len(characters), f"rendering {script} {split}")
        images = torch.cat([render(character, size, instances, seed) for character in tracker])
        with open_atomic(path) as file:
            np.savez(file, images=images.numpy())
    labels = torch.arange(len(characters)).repeat_interleave(instances)
    name = f"glyphs-{script}-{split}"
    return LabeledImages(
        images, labels, tuple(characters), name, recipe=json.dumps([*key, _typefaces()])
    )


def classes(script: str, split: str) -> str:
    """The characters that are the classes of a split, in the order of their labels.

    Args:
        script: name of the script.
        split: name of the split.

    Raises:
        ValueError: there is no such script, or the script has no such split.

    Example:
        >>> len(classes("armenian", "test"))
        42
    """
    lists = json.loads(Path(__file__).with_name("glyphs.json").read_text("utf-8"))["classes"]
    if script not in lists:
        raise ValueError(f"no script {script!r}; there are: {', '.join(lists)}")
    if split not in lists[script]:
        raise ValueError(f"{script} has no split {split!r}, only: {', '.join(lists[script])}")
    characters: str = lists[script][split]
    return characters


def faces_with(character: str) -> list[str]:
    """The typefaces that have a character, in the order of ``FACES``."""
    return [f for f in FACES if ord(character) in _coverage(f) and draw(character, f) is not None]


@remember
def _typefaces() -> str:
    """Hash of the files of all typefaces."""
    digest = hashlib.sha256()
    for face in FACES:
        digest.update(_file(face).read_bytes())
    return digest.hexdigest()


@remember
def _coverage(face: str) -> frozenset[int]:
    from fontTools.ttLib import TTFont  # type: ignore[import-untyped]

    with TTFont(_file(face), lazy=True) as font:
        return frozenset(font.getBestCmap())


@remember
def _font(face: str) -> ImageFont.FreeTypeFont:
    # The basic layout needs no shaping library, whose presence would change the images.
    return ImageFont.truetype(str(_file(face)), FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC)


def _file(face: str) -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")


@lru_cache(maxsize=2 * len(FACES))
def draw(character: str, face: str) -> Image.Image | None:
    """A character in one typeface, white on black, cropped to its box; None if it is blank."""
    canvas = Image.new("L", (4 * FONT_PIXELS, 4 * FONT_PIXELS))
    middle = (2 * FONT_PIXELS, 2 * FONT_PIXELS)
    ImageDraw.Draw(canvas).text(middle, character, 255, _font(face), anchor="mm")
    box = canvas.getbbox()
    return canvas.crop(box) if box else None


def render(character: str, size: int, instances: int, seed: int) -> Tensor:
    """Images of one character, uint8 [instances, 1, size, size].

    The strokes are sampled at twice the size (an affine map plus a smooth warp of the drawing) and
    thickened or thinned; then they are averaged to the size, smudged, and given grays.

    Args:
        character: the character.
        size: side of the images in pixels.
        instances: number of images.
        seed: seed of all randomness.

    Raises:
        ValueError: no typeface has the character.
    """
    drawings = [draw(character, face) for face in faces_with(character)]
    if not drawings:
        raise ValueError(f"no bundled text face has {character!r} (U+{ord(character):04X})")
    randoms = [
        np.random.default_rng([seed, ord(character), instance]) for instance in range(instances)
    ]
    chosen = [drawings[random.integers(len(drawings))] for random in randoms]
    sheets, boxes = _centered([drawing for drawing in chosen if drawing is not None])
    return _print(_strokes(sheets, boxes, size, randoms), randoms)


def _centered(drawings: list[Image.Image]) -> tuple[Tensor, Tensor]:
    """Drawings centered on sheets [N, 1, S, S], and their longer sides as fractions of S [N]."""
    side = 2 * FONT_PIXELS
    sheets = torch.zeros(len(drawings), 1, side, side)
    for sheet, drawing in zip(sheets, drawings, strict=True):
        left, top = (side - drawing.width) // 2, (side - drawing.height) // 2
        pixels = torch.from_numpy(np.asarray(drawing, np.float32) / 255)
        sheet[0, top : top + drawing.height, left : left + drawing.width] = pixels
    return sheets, torch.tensor([max(drawing.size) for drawing in drawings]) / side


def _uniform(randoms: list[np.random.Generator], low: float, high: float, *shape: int) -> Tensor:
    """Uniform draws [N, *shape], for each image from its own generator."""
    draws = np.stack([random.uniform(low, high, shape) for random in randoms])
    return torch.from_numpy(draws).float()


def _strokes(
    sheets: Tensor, boxes: Tensor, size: int, randoms: list[np.random.Generator]
) -> Tensor:
    """Ink in [0, 1], [N, 1, 2 * size, 2 * size], each drawing with random pose and weight."""
    extent = _uniform(randoms, 0.62, 0.9) / boxes  # longer side, as part of the image
    angle = _uniform(randoms, -math.radians(18), math.radians(18))
    shear = _uniform(randoms, -0.22, 0.22)
    stretch = _uniform(randoms, -0.2, 0.2).exp()
    shift = _uniform(randoms, -0.1, 0.1, 2, 1)
    warp = _uniform(randoms, -0.12, 0.12, 2, _COARSE, _COARSE)
    weight = _uniform(randoms, 0.2, 0.55, 1, 1, 1)

    # Sampling maps the image back to the sheet: unrotate, unshear, then undo the scale.
    cos, sin, one, zero = angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
    rotate = torch.stack([cos, sin, -sin, cos], -1).reshape(-1, 2, 2)
    slant = torch.stack([one, shear, zero, one], -1).reshape(-1, 2, 2)
    scale = torch.stack([1 / stretch, zero, zero, stretch], -1).reshape(-1, 2, 2)
    linear = (scale @ slant @ rotate) / extent[:, None, None]
    affine = torch.cat([linear, linear @ shift], -1)
    shape = [len(sheets), 1, 2 * size, 2 * size]
    grid = F.affine_grid(affine, shape, align_corners=False)
    smooth = F.interpolate(warp, shape[2:], mode="bicubic", align_corners=True)
    grid = grid + smooth.permute(0, 2, 3, 1) * boxes[:, None, None, None]
    ink = F.grid_sample(sheets, grid, align_corners=False)

    # A low threshold on blurred strokes thickens them, a high one thins them.
    return ((_blur(ink, size / 24) - weight) * 4 + 0.5).clamp(0, 1)


def _print(ink: Tensor, randoms: list[np.random.Generator]) -> Tensor:
    """Gray images [N, 1, S, S], uint8, of ink [N, 1, 2 * S, 2 * S]."""
    ink = F.avg_pool2d(ink, 2)
    size = ink.shape[-1]
    softness = _uniform(randoms, 0, 1, 1, 1, 1)
    ink = torch.lerp(ink, _blur(ink, size / 32), softness)

    # A smudge is a streak of ink or of bare paper across the whole image: a spot, or a short
    # streak, could pass for a dot or a bar that belongs to the letter.
    line = torch.linspace(-1, 1, size)
    angle = _uniform(randoms, 0, math.pi, _STREAKS, 1, 1)
    offset = _uniform(randoms, -0.9, 0.9, _STREAKS, 1, 1)
    width = _uniform(randoms, 0, 0.08, _STREAKS, 1, 1)
    tone = _uniform(randoms, 0, 1, _STREAKS, 1, 1).round()
    cover = _uniform(randoms, -0.7, 0.7, _STREAKS, 1, 1).clamp(min=0)
    distance = (angle.cos() * line + angle.sin() * line[:, None] - offset).abs()
    cover = cover * ((width - distance) * size / 4 + 0.5).clamp(0, 1)
    for streak in range(_STREAKS):
        ink = torch.lerp(ink, tone[:, streak, None], cover[:, streak, None])

    paper = _uniform(randoms, 0.55, 1, 1, 1, 1)
    contrast = _uniform(randoms, 0.35, 0.55, 1, 1, 1)
    slope = _uniform(randoms, -0.12, 0.12, 2, 1, 1)
    light = slope[:, :1] * line + slope[:, 1:] * line[:, None]
    gray = paper - contrast * ink + light
    inverted = _uniform(randoms, 0, 1, 1, 1, 1) < 0.25
    gray = torch.where(inverted, 1 - gray, gray)

    strength = _uniform(randoms, 0.02, 0.1, 1, 1, 1)
    noise = np.stack([random.standard_normal((1, size, size), np.float32) for random in randoms])
    gray = gray + strength * torch.from_numpy(noise)
    return (gray.clamp(0, 1) * 255).round().to(torch.uint8)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of images [N, 1, H, W]."""
    reach = math.ceil(2 * sigma)
    line = torch.arange(-reach, reach + 1) / sigma
    kernel = (-0.5 * line**2).exp()
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, -1)
    images = F.conv2d(images, kernel, padding=(0, reach))
    return F.conv2d(images, kernel.mT, padding=(reach, 0))


def _read(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """Cached images, or None if there are none or the file is damaged."""
    try:
        # np.load leaves a file that it opened itself open when the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            images = stored["images"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if images.shape != shape or images.dtype != np.uint8:
        return None
    return torch.from_numpy(images)
