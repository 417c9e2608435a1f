"""What a session holds, and what it answers, as HTML; pictures are within it, not in files."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from omnitraining.demo.session import Answer, Opinion, Picture
from omnitraining.evaluation import ENSEMBLE

MOST = 5  # bars of the answer; 3 of a flow
FLOWS = {
    "pre": "knows features of many classes",
    "joint": "shared by both kinds of training",
    "meta": "trained to learn from few examples",
}


def classes(pictures: Mapping[str, Sequence[Picture]]) -> str:
    """The classes and their pictures, or what to do first."""
    if not pictures:
        return (
            '<p class="omni-empty">No classes yet. Name one below and choose a few pictures of it, '
            "or begin with the example.</p>"
        )
    cards = "".join(
        f"<li><strong>{escape(name)}</strong> <span>{_count(len(many))}</span>"
        f"<div>{''.join(_image(picture, f'example of {name}') for picture in many)}</div></li>"
        for name, many in pictures.items()
    )
    hint = (
        '<p class="omni-empty">One class so far: add another, there must be two to choose from.</p>'
        if len(pictures) == 1
        else ""
    )
    return f'<ul class="omni-classes">{cards}</ul>{hint}'


def answer(found: Answer | None) -> str:
    """The label, the probabilities and every flow's opinion; or what to do first."""
    if found is None:
        return (
            '<p class="omni-empty">No answer yet. With two classes or more, draw or choose a '
            "picture and ask which class it is.</p>"
        )
    final = found.opinions[-1]
    times = f"Answered in {_milliseconds(found.ask_seconds)}"
    if found.fit_seconds > 0.0005:
        times += f", after learning what is new in {_milliseconds(found.fit_seconds)}"
    stranger = (
        '<p class="omni-note">It is unlike all classes. It may be none of them.</p>'
        if found.stranger
        else ""
    )
    alone = [opinion for opinion in found.opinions if opinion.flow != ENSEMBLE]
    flows = "".join(_flow(opinion, found) for opinion in alone)
    head = f"ensemble, the mean of {len(alone)} flows" if len(alone) > 1 else "its only flow"
    maps = (
        f"<p>Warm places speak for <strong>{escape(found.label)}</strong> in that flow.</p>"
        if any(opinion.heat is not None for opinion in alone)
        else "<p>This network has no places that could be shown.</p>"
    )
    return (
        f'<div class="omni-answer"><div class="omni-verdict">{_image(found.levels, "the picture")}'
        f'<p>It is <strong id="omni-label">{escape(found.label)}</strong> '
        f"<span>{_sureness(final)} sure ({head})</span></p></div>{stranger}"
        f"{_bars(final, MOST)}<h3>What each flow thinks</h3>{maps}"
        f'<ul class="omni-flows">{flows}</ul><p class="omni-times">{times}.</p></div>'
    )


def picture(pixels: Picture) -> str:
    """A picture to ask about."""
    return f'<div class="omni-picture">{_image(pixels, "example to ask about")}</div>'


def message(text: str, wrong: bool = False) -> str:
    """A sentence that screen readers speak as it appears; nothing if it is empty."""
    if not text:
        return '<div role="status" class="omni-silent"></div>'
    kind, role = ("omni-wrong", "alert") if wrong else ("omni-done", "status")
    return f'<div class="omni-message {kind}" role="{role}">{escape(text)}</div>'


def _flow(opinion: Opinion, found: Answer) -> str:
    words = f"{opinion.flow}-flow"
    pixels, shown = _colors(found.levels), f"what the {words} saw"
    if opinion.heat is not None:
        # As in the figure of the paper: warm colors over the picture.
        warm = colormaps["turbo"](opinion.heat)[..., :3] * 255
        pixels = (0.55 * pixels + 0.45 * warm).round().astype(np.uint8)
        shown = f"where the {words} looked"
    agrees = "" if opinion.label == found.label else ' class="omni-other"'
    return (
        f"<li{agrees}>{_image(pixels.transpose(2, 0, 1), shown)}<div><strong>{words}</strong>"
        f"<span>{FLOWS[opinion.flow]}</span>{_bars(opinion, 3)}</div></li>"
    )


def _bars(opinion: Opinion, most: int) -> str:
    ordered = sorted(opinion.probabilities.items(), key=lambda item: -item[1])
    shown = [(escape(name), odds) for name, odds in ordered[:most]]
    if len(ordered) > most:
        shown.append((f"{len(ordered) - most} others", sum(odds for _, odds in ordered[most:])))
    rows = "".join(
        f"<tr><th scope='row' title='{name}'>{name}</th>"
        f"<td><div><i style='width:{100 * odds:.1f}%'></i></div></td><td>{odds:.1%}</td></tr>"
        for name, odds in shown
    )
    return f'<table class="omni-bars"><tbody>{rows}</tbody></table>'


def _image(pixels: NDArray[np.uint8], words: str) -> str:
    """An image [C, H, W], within the page."""
    file = io.BytesIO()
    Image.fromarray(_colors(pixels)).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    # A few pixels are shown as squares, as the network gets them, many are not.
    kind = ' class="omni-coarse"' if pixels.shape[-1] <= 48 else ""
    return f'<img{kind} src="data:image/png;base64,{data}" alt="{escape(words)}">'


def _colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image [C, H, W], gray or not, as [H, W, 3]."""
    whole = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    return np.ascontiguousarray(whole)


def _sureness(opinion: Opinion) -> str:
    odds = max(opinion.probabilities.values())
    return f"{odds:.0%}" if odds < 0.99 else "over 99%"  # calibrated, so never all


def _count(pictures: int) -> str:
    return "1 picture" if pictures == 1 else f"{pictures} pictures"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
