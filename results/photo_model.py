"""The shipped model of photographs beside untrained features: a picture and a table."""

from collections.abc import Mapping
from typing import Any

from bars import bars

from omnitraining.config.values import read_values
from omnitraining.evaluation import ENSEMBLE
from omnitraining.experiments.tables import markdown
from omnitraining.learner.sources import MODELS

Values = Mapping[str, Any]
"""A file of a benchmark, which is no record of an experiment."""


def picture(described: Values, model: Values) -> str:
    """The shipped model of photographs beside untrained features, at five images per class.

    Args:
        described: accuracies of histograms and HOG.
        model: the file of calibration of the model, which has its accuracies.
    """
    groups = {
        name: [before[1], after[1]]
        for name, (before, after) in _accuracies(described, model).items()
    }
    title = "Accuracy with five images of each of five unseen classes"
    return bars(title, ("color histograms and HOG", "the model photos"), groups)


def table(described: Values, model: Values) -> str:
    """The same as a table, also at one image per class.

    Args:
        described: as in `picture`.
        model: as in `picture`.
    """
    lines = [
        [name, *(f"{value:.1f}" for pair in zip(before, after, strict=True) for value in pair)]
        for name, (before, after) in _accuracies(described, model).items()
    ]
    widest = max(value["interval"] for value in described["accuracy"].values())
    both = "histograms, HOG", "`photos`"
    header = ["unseen classes of", *(f"{s}-shot: {name}" for s in (1, 5) for name in both)]
    return (
        markdown(header, lines)
        + f"\n5-way accuracy in %, {model['tasks']} tasks of each kind; histograms and HOG with "
        f"logistic regression at 64 pixels (95 % intervals of at most ± {widest:.1f}), `photos` at "
        f"{_size()}. The tasks of both are drawn alike, but are not the same. `photos` was trained "
        "on other classes of these data sets, but not on CIFAR-FS.\n"
    )


def _size() -> int:
    """Pixels of a side of the images of the shipped model."""
    values = read_values(MODELS / "photos" / "config.yaml")
    size: int = values["problem"]["init_args"]["size"]
    return size


def _accuracies(described: Values, model: Values) -> dict[str, list[list[float]]]:
    """Accuracies of the features and of the model, each at one and five shots, by benchmark."""
    names = dict.fromkeys(cell.rsplit(" ", 2)[0] for cell in described["accuracy"])
    cells = {name: [f"{name} 5-way {shots}-shot" for shots in (1, 5)] for name in names}
    return {
        name: [
            [described["accuracy"][cell]["mean"] for cell in both],
            [model["probabilities"][cell][ENSEMBLE]["accuracy"] for cell in both],
        ]
        for name, both in cells.items()
    }
