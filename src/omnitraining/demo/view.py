"""Classes and predictions of a session as HTML; pictures are embedded in it, not files."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from omnitraining.demo.session import FlowPrediction, Picture, Prediction
from omnitraining.evaluation import ENSEMBLE

BARS, FLOW_BARS = 5, 3  # classes shown for the ensemble and for a flow
FLOWS = {
    "pre": "pre-trained on many classes at once",
    "joint": "trained both ways, shared by the others",
    "meta": "meta-trained on few-shot tasks",
}


def classes(pictures: Mapping[str, Sequence[Picture]]) -> str:
    """The classes and their pictures; a hint if there are none."""
    if not pictures:
        return (
            '<p class="omni-empty">No classes yet. Name one below and choose a few pictures of it, '
            "or start with the example.</p>"
        )
    cards = "".join(
        f"<li><strong>{escape(name)}</strong> <span>{_count(len(many))}</span>"
        f"<div>{''.join(_image(picture, f'example of {name}') for picture in many)}</div></li>"
        for name, many in pictures.items()
    )
    hint = (
        '<p class="omni-empty">One class so far: add another, two are needed.</p>'
        if len(pictures) == 1
        else ""
    )
    return f'<ul class="omni-classes">{cards}</ul>{hint}'


def prediction(result: Prediction | None) -> str:
    """Label and probabilities of the ensemble and of every flow; a hint if there is no result."""
    if result is None:
        return (
            '<p class="omni-empty">No prediction yet. With two classes or more, draw or choose a '
            "picture and press the button.</p>"
        )
    ensemble = result.flows[-1]
    times = f"Predicted in {_milliseconds(result.seconds)}"
    if result.fit_seconds > 0.0005:
        times += f", after fitting the new pictures in {_milliseconds(result.fit_seconds)}"
    unknown = (
        '<p class="omni-note">It is unlike all classes. It may be none of them.</p>'
        if result.unknown
        else ""
    )
    single = [flow for flow in result.flows if flow.flow != ENSEMBLE]
    flows = "".join(_flow(flow, result) for flow in single)
    source = f"ensemble, the mean of {len(single)} flows" if len(single) > 1 else "the only flow"
    maps = (
        f"<p>Warm regions are evidence for <strong>{escape(result.label)}</strong> in that "
        "flow.</p>"
        if any(flow.heat is not None for flow in single)
        else "<p>This network has no feature maps to show.</p>"
    )
    return (
        f'<div class="omni-answer"><div class="omni-verdict">{_image(result.pixels, "the picture")}'
        f'<p><strong id="omni-label">{escape(result.label)}</strong> '
        f"<span>{_percent(ensemble)} ({source})</span></p></div>{unknown}"
        f"{_bars(ensemble, BARS)}<h3>Predictions of the flows</h3>{maps}"
        f'<ul class="omni-flows">{flows}</ul><p class="omni-times">{times}.</p></div>'
    )


def picture(pixels: Picture) -> str:
    """A picture to classify."""
    return f'<div class="omni-picture">{_image(pixels, "example to classify")}</div>'


def message(text: str, wrong: bool = False) -> str:
    """A sentence that screen readers read when it appears; nothing if it is empty."""
    if not text:
        return '<div role="status" class="omni-silent"></div>'
    kind, role = ("omni-wrong", "alert") if wrong else ("omni-done", "status")
    return f'<div class="omni-message {kind}" role="{role}">{escape(text)}</div>'


def _flow(flow: FlowPrediction, result: Prediction) -> str:
    name = f"{flow.flow}-flow"
    pixels, caption = _colors(result.pixels), f"input of the {name}"
    if flow.heat is not None:
        # As in the figure of the paper: warm colors over the picture.
        warm = colormaps["turbo"](flow.heat)[..., :3] * 255
        pixels = (0.55 * pixels + 0.45 * warm).round().astype(np.uint8)
        caption = f"attention map of the {name}"
    agrees = "" if flow.label == result.label else ' class="omni-other"'
    return (
        f"<li{agrees}>{_image(pixels.transpose(2, 0, 1), caption)}<div><strong>{name}</strong>"
        f"<span>{FLOWS[flow.flow]}</span>{_bars(flow, FLOW_BARS)}</div></li>"
    )


def _bars(flow: FlowPrediction, count: int) -> str:
    ordered = sorted(flow.probabilities.items(), key=lambda item: -item[1])
    shown = [(escape(name), p) for name, p in ordered[:count]]
    if len(ordered) > count:
        shown.append((f"{len(ordered) - count} others", sum(p for _, p in ordered[count:])))
    rows = "".join(
        f"<tr><th scope='row' title='{name}'>{name}</th>"
        f"<td><div><i style='width:{100 * p:.1f}%'></i></div></td><td>{p:.1%}</td></tr>"
        for name, p in shown
    )
    return f'<table class="omni-bars"><tbody>{rows}</tbody></table>'


def _image(pixels: NDArray[np.uint8], caption: str) -> str:
    """An image [C, H, W], embedded in the page."""
    file = io.BytesIO()
    Image.fromarray(_colors(pixels)).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    # Small images are shown as squares of pixels, as the network takes them.
    kind = ' class="omni-coarse"' if pixels.shape[-1] <= 48 else ""
    return f'<img{kind} src="data:image/png;base64,{data}" alt="{escape(caption)}">'


def _colors(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image [C, H, W], gray or not, as [H, W, 3]."""
    whole = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    return np.ascontiguousarray(whole)


def _percent(flow: FlowPrediction) -> str:
    p = max(flow.probabilities.values())
    return f"{p:.0%}" if p < 0.99 else "over 99%"  # a calibrated probability is below 1


def _count(pictures: int) -> str:
    return "1 picture" if pictures == 1 else f"{pictures} pictures"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
