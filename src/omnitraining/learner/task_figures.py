"""Figures of a `TaskReport`: the confusion matrix, and a sheet of the most confident mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from omnitraining.errors import InputError
from omnitraining.learner.task_report import TaskReport

MOST_NUMBERS = 25  # classes up to which each cell has its number
ACROSS, THUMBNAIL, LONGEST = 6, 160, 22  # images in a line, their side, characters of a name


def confusion_figure(report: TaskReport) -> Figure:
    """The confusion matrix: a row per class, a column per prediction, shaded by share of the row.

    Args:
        report: of a learner on labeled images.
    """
    table = report.shown_confusion
    names = [_short(str(name)) for name in report.classes.tolist()]
    columns = [*names, "rejected"][: table.shape[1]]
    side = min(3 + 0.32 * len(names), 24)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axis = figure.subplots()
    shares = table / table.sum(1, keepdims=True).clip(1)
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 9 if len(names) <= 12 else 6
    axis.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size, parse_math=False)
    axis.set_yticks(range(len(names)), names, fontsize=size, parse_math=False)
    axis.set_xlabel("predicted")
    axis.set_ylabel("class")
    low, high = report.interval
    axis.set_title(f"accuracy {report.accuracy:.1%} ({low:.1%} to {high:.1%})", fontsize=10)
    if len(names) <= MOST_NUMBERS:
        for (row, column), number in np.ndenumerate(table):
            if number:
                color = "white" if shares[row, column] > 0.5 else "black"
                axis.text(
                    column, row, str(number), ha="center", va="center", color=color, fontsize=size
                )
    figure.colorbar(picture, ax=axis, label="share of the class", shrink=0.8)
    return figure


def mistakes_figure(report: TaskReport, pixels: Any = None) -> Figure | None:
    """A sheet of the most confident mistakes; None if there are none, or no pixels of them.

    Args:
        report: of a learner on labeled images.
        pixels: of all images, where they were not given as paths.
    """
    numbers = report.mistakes(4 * ACROSS)
    if pixels is None and not all(isinstance(report.images[n], str | Path) for n in numbers):
        return None
    if not numbers:
        return None
    lines = -(-len(numbers) // ACROSS)
    figure = Figure(figsize=(1.9 * ACROSS, 2.45 * lines), layout="constrained")
    axes = figure.subplots(lines, ACROSS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, number in zip(axes.flat, numbers, strict=False):
        if pixels is None:
            axis.imshow(_thumbnail(Path(report.images[number])))
        else:
            axis.imshow(np.squeeze(pixels[number]), cmap="gray")
        guess = report.classes[report.probabilities[number].argmax()]
        share = report.probabilities[number].max()
        name = _short(Path(str(report.images[number])).name)
        title = f"{_short(str(guess))} {share:.0%}\nis {_short(str(report.labels[number]))}\n{name}"
        axis.set_title(title, fontsize=7, parse_math=False)
    return figure


def save_report(report: TaskReport, folder: Path, pixels: Any = None) -> list[Path]:
    """Write confusion.png, and mistakes.png where there are mistakes to show.

    Args:
        report: of a learner on labeled images.
        folder: made if it is missing.
        pixels: of all images, where they were not given as paths.

    Raises:
        InputError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figures = {
            "confusion": confusion_figure(report),
            "mistakes": mistakes_figure(report, pixels),
        }
        made = []
        for name, figure in figures.items():
            if figure is not None:
                made.append(folder / f"{name}.png")
                figure.savefig(made[-1], dpi=130)
    except OSError as error:
        raise InputError(f"figures cannot be written to {folder}: {error}") from error
    return made


def _thumbnail(path: Path) -> Image.Image:
    with Image.open(path) as image:
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return small


def _short(name: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in name)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."
