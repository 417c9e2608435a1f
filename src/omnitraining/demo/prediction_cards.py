"""Predictions as HTML: a card for each picture, with the predictions of every flow."""

from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib import colormaps

from omnitraining.demo.html import colors, duration, hint, image, percent
from omnitraining.demo.pictures import Query
from omnitraining.demo.predictions import ACCEPT_RATE, PERHAPS, FlowPrediction, Prediction
from omnitraining.demo.session import Predictions, counted
from omnitraining.evaluation import ENSEMBLE

BARS, FEW_BARS = 5, 3  # classes shown of one picture, and of several or of a flow
FLOWS = {
    "pre": "pre-trained on many classes at once",
    "joint": "trained both ways, shared by the others",
    "meta": "meta-trained on few-shot tasks",
}
LEGEND = (
    f"“Perhaps” stands before a label with a probability below {PERHAPS:.0%}. A picture is called "
    f"unlike all classes if it is less similar to each of them than {ACCEPT_RATE:.0%} of pictures "
    "of known classes are to theirs."
)


def prediction_cards(queries: Sequence[Query], found: Predictions | None) -> str:
    """A card for each picture; a hint if there are none.

    Args:
        queries: the pictures.
        found: their predictions.
    """
    if found is None:
        return hint(
            "No prediction yet. With two classes or more, choose pictures, or draw one, and press "
            "the button."
        )
    cards = "".join(
        _card(query, prediction, len(queries) == 1)
        for query, prediction in zip(queries, found.predictions, strict=True)
    )
    times = f"{counted(len(queries), 'picture')} predicted in {duration(found.seconds)}"
    if found.fit_seconds > 0.0005:
        times += f", after fitting the new pictures in {duration(found.fit_seconds)}"
    return (
        f'<ul class="omni-answers">{cards}</ul><p class="omni-times">{times}.</p>'
        f'<p class="omni-times">{LEGEND}</p>'
    )


def query_pictures(queries: Sequence[Query]) -> str:
    """Pictures that are not predicted yet."""
    shown = "".join(image(query.preview, query.name) for query in queries)
    return f'<div class="omni-pictures">{shown}</div>'


def _card(query: Query, prediction: Prediction, alone: bool) -> str:
    """Preview, verdict, the most likely classes, and the flows, which can be folded."""
    label, probability = escape(prediction.label), percent(prediction.probability)
    if prediction.unknown:
        verdict, details = "unlike all classes", f"nearest: {label}, {probability}"
    elif prediction.probability < PERHAPS:
        verdict, details = f"perhaps {label}", probability
    else:
        verdict, details = label, probability
    kind = ' class="omni-unsure"' if verdict != label else ""
    return (
        f"<li{kind}>{image(query.preview, f'picture {query.name}')}"
        f'<div><p class="omni-verdict"><strong class="omni-label">{verdict}</strong> '
        f"<span>{details}</span></p>"
        f'<p class="omni-name">{escape(query.name)}</p></div>'
        f"{_bars(prediction.flows[-1], BARS if alone else FEW_BARS)}"
        f"{_flows(prediction, alone)}</li>"
    )


def _flows(prediction: Prediction, alone: bool) -> str:
    single = [flow for flow in prediction.flows if flow.flow != ENSEMBLE]
    if any(flow.heat is not None for flow in single):
        maps = f"Warm regions are evidence for <strong>{escape(prediction.label)}</strong>."
    else:
        maps = "This network has no feature maps to show."
    mean = " The probability above is their mean, calibrated." if len(single) > 1 else ""
    cards = "".join(_flow(flow, prediction) for flow in single)
    title = "Each flow" if len(single) > 1 else "The picture as the network takes it"
    return (
        f"<details{' open' if alone else ''}><summary>{title}</summary><p>{maps}{mean}</p>"
        f'<ul class="omni-flows">{cards}</ul></details>'
    )


def _flow(flow: FlowPrediction, prediction: Prediction) -> str:
    name = f"{flow.flow}-flow"
    pixels, caption = colors(prediction.pixels), f"input of the {name}"
    if flow.heat is not None:
        # As in the figure of the paper: warm colors over the picture.
        warm = colormaps["turbo"](flow.heat)[..., :3] * 255
        pixels = (0.55 * pixels + 0.45 * warm).round().astype(np.uint8)
        caption = f"attention map of the {name}"
    agrees = "" if flow.label == prediction.label else ' class="omni-other"'
    return (
        f"<li{agrees}>{image(pixels.transpose(2, 0, 1), caption)}<div><strong>{name}</strong>"
        f"<span>{FLOWS[flow.flow]}</span>{_bars(flow, FEW_BARS)}</div></li>"
    )


def _bars(flow: FlowPrediction, count: int) -> str:
    ordered = sorted(flow.probabilities.items(), key=lambda item: -item[1])
    if len(ordered) == count + 1:
        count += 1  # in place of one other
    shown = [(escape(name), p) for name, p in ordered[:count]]
    if len(ordered) > count:
        shown.append((f"{len(ordered) - count} others", sum(p for _, p in ordered[count:])))
    rows = "".join(
        f"<tr><th scope='row'>{name}</th>"
        f"<td><div><i style='width:{100 * p:.1f}%'></i></div></td><td>{p:.1%}</td></tr>"
        for name, p in shown
    )
    return f'<table class="omni-bars"><tbody>{rows}</tbody></table>'
