"""Parts of HTML: messages, numbers, and images, which are embedded in the page."""

import base64
import io
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COARSE = 48  # pixels: smaller images are shown as squares of pixels, as the network takes them
LOSSLESS = 64  # pixels: larger images are photographs, and compressed


def message(text: str, wrong: bool = False) -> str:
    """A sentence that screen readers read when it appears; nothing if it is empty."""
    if not text:
        return '<div role="status" class="omni-silent"></div>'
    kind, role = ("omni-wrong", "alert") if wrong else ("omni-done", "status")
    return f'<div class="omni-message {kind}" role="{role}">{escape(text)}</div>'


def hint(text: str) -> str:
    """What to do where nothing is shown yet."""
    return f'<p class="omni-empty">{escape(text)}</p>'


def note(text: str) -> str:
    """What to be careful about."""
    return f'<p class="omni-note">{escape(text)}</p>'


def image(pixels: NDArray[np.uint8] | Image.Image, caption: str) -> str:
    """An image [C, H, W], in gray or color, or one of Pillow, embedded in the page.

    Args:
        pixels: the image.
        caption: alternative text, for users who cannot see the image.
    """
    shown = pixels if isinstance(pixels, Image.Image) else Image.fromarray(colors(pixels))
    longest = max(shown.size)
    kind = "PNG" if longest <= LOSSLESS else "JPEG"
    file = io.BytesIO()
    shown.save(file, kind, quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    coarse = ' class="omni-coarse"' if longest <= COARSE else ""
    source = f"data:image/{kind.lower()};base64,{data}"
    return f'<img{coarse} src="{source}" alt="{escape(caption)}">'


def colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image [C, H, W], gray or not, as [H, W, 3]."""
    whole = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    return np.ascontiguousarray(whole)


def percent(probability: float) -> str:
    """A probability; a calibrated one is never 1."""
    return f"{probability:.0%}" if probability < 0.99 else "over 99%"


def duration(seconds: float) -> str:
    """A time, in milliseconds if it is short."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
