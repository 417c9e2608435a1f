"""Figures of matplotlib without pyplot: drawing changes no state of the caller's program."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def subplots(
    lines: int, across: int, figsize: tuple[float, float], layout: Any = None, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its grid of axes [lines, across].

    Args:
        lines: of panels.
        across: panels in a line.
        figsize: in inches.
        layout: engine of matplotlib that places the panels.
        options: of `matplotlib.figure.Figure.subplots`.
    """
    figure = Figure(figsize=figsize, layout=layout)
    return figure, figure.subplots(lines, across, squeeze=False, **options)


def save(figure: Figure, path: Path, dpi: int = 130, tight: bool = False) -> Path:
    """Write a figure; the suffix of the path determines the format.

    Args:
        figure: what was drawn.
        path: of the file.
        dpi: pixels per inch.
        tight: cut the margins away.
    """
    figure.savefig(path, dpi=dpi, bbox_inches="tight" if tight else None)
    return path


def open_sides(axis: Any) -> None:
    """Leave out the lines above and to the right of a panel."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def one_legend(figure: Figure, ncol: int, **options: Any) -> int:
    """One legend for all panels, with each label once; returns how many lines it has.

    Args:
        figure: with labeled lines.
        ncol: labels beside each other.
        options: of `matplotlib.figure.Figure.legend`.
    """
    handles = {
        label: handle
        for axis in figure.axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend([*handles.values()], [*handles], frameon=False, ncol=ncol, **options)
    return -(-len(handles) // ncol)
