"""The classes of a session, and what a fit measured on them, as HTML."""

from collections.abc import Mapping, Sequence
from html import escape

from omnitraining.datasets.decoding import Aspect
from omnitraining.demo.html import hint, image, message, note
from omnitraining.demo.pictures import Picture
from omnitraining.demo.session import counted
from omnitraining.learner.held_out import FitReport
from omnitraining.learner.inputs import ImageInputs

SQUARES: dict[Aspect, str] = {
    "stretch": "pictures are resized to them, and look squeezed if they are long",
    "crop": "the center of each picture, so that the ends of long ones are cut off",
    "letterbox": "the whole of each picture, with gray beside or above it",
}


def classes(pictures: Mapping[str, Sequence[Picture]]) -> str:
    """The classes and their pictures; a hint if there are none."""
    if not pictures:
        return hint(
            "No classes yet. Name one below and choose a few pictures of it, give a folder with a "
            "folder for each class, or start with the example."
        )
    cards = "".join(
        f"<li><strong>{escape(name)}</strong> <span>{counted(len(many), 'picture')}</span>"
        f"<div>{''.join(image(picture, f'example of {name}') for picture in many)}</div></li>"
        for name, many in pictures.items()
    )
    one = hint("One class so far: add another, two are needed.") if len(pictures) == 1 else ""
    return f'<ul class="omni-classes">{cards}</ul>{one}'


def fit(report: FitReport | None, pictures: Mapping[str, Sequence[Picture]], model: str) -> str:
    """How well the classes are distinguished, by their own pictures; empty without a fit.

    Args:
        report: of the fit.
        pictures: by class.
        model: its name.
    """
    if report is None:
        return message("")
    if all(len(many) == 1 for many in pictures.values()):
        return note(
            "One picture of each class: with a second one, it is measured how well the classes are "
            "distinguished."
        )
    if report.accuracy is None:
        return note("How well the classes are distinguished is not measured with this model.")
    right = round(report.accuracy * report.images)
    words = (
        '<p class="omni-accuracy">Accuracy on these pictures: '
        f"<strong>{report.accuracy:.0%}</strong> ({right} of {report.images}, each held out once "
        "and predicted by the others).</p>"
    )
    if report.calibrated is False:
        words += note(
            f"These pictures are unlike those that {model} was validated on, where "
            f"{report.confidence or 0:.0%} would be right: probabilities may be wrong, and what is "
            "called unlike all classes may not be."
        )
    return words


def resizing(inputs: ImageInputs) -> str:
    """How pictures become inputs of the network, in a sentence."""
    colors = "in color" if inputs.channels == 3 else "in gray"
    return (
        f"The network takes squares of {inputs.size} x {inputs.size} pixels {colors}: "
        f"{SQUARES[inputs.aspect]}."
    )
