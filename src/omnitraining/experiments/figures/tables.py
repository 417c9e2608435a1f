"""Figure of a table of the paper: every method's result beside the published one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from omnitraining.evaluation import CellKey
from omnitraining.experiments.figures import accuracies
from omnitraining.experiments.figures.canvas import one_legend, open_sides, save, subplots
from omnitraining.experiments.record import Number, Record
from omnitraining.experiments.tables import caption, columns, means, record_markdown


def section(record: Record, picture: str) -> str:
    """The table and the picture.

    Args:
        record: with numbers of the paper, or without.
        picture: file beside the record; empty if there is none.
    """
    return record_markdown(record) + (f"\n![{record.title}]({picture})\n" if picture else "")


def draw(record: Record, runs: Any, path: Path) -> Path:
    """One panel per cell: a point per method with its 95 % interval, and the paper's beside it.

    Without numbers of the paper it is the figure of `accuracies`.

    Args:
        record: with numbers of the paper, or without.
        runs: not needed.
        path: the picture.
    """
    if not any(row.paper for row in record.rows.values()):
        return accuracies.draw(record, runs, path)
    cells, names = columns(record), [*record.rows]
    figure, axes = panels(cells, names)
    here: dict[str, Any] = {"fmt": "o", "color": "tab:blue", "label": "here"}
    there: dict[str, Any] = {"fmt": "D", "color": "tab:orange", "mfc": "white", "label": "paper"}
    measured: list[dict[CellKey, Number]] = [
        {key: (mean.mean, mean.interval) for key, mean in means(row).items()}
        for row in record.rows.values()
    ]
    published = [row.paper for row in record.rows.values()]
    for axis, key in zip(axes, cells, strict=True):
        _points(axis, key, measured, -0.13, here)
        _points(axis, key, published, 0.13, there)
    return finish(figure, f"{record.title}\n{caption(record)}", path)


def _points(
    axis: Axes,
    key: CellKey,
    rows: Sequence[Mapping[CellKey, Number]],
    offset: float,
    style: Mapping[str, Any],
) -> None:
    """A point with its interval for every row that has the cell."""
    points = [(place, row[key]) for place, row in enumerate(rows) if key in row]
    axis.errorbar(
        [value[0] for _, value in points],
        [place + offset for place, _ in points],
        xerr=[value[1] or 0.0 for _, value in points],
        markersize=5,
        capsize=2,
        **style,
    )


def panels(cells: list[CellKey], names: list[str]) -> tuple[Figure, list[Axes]]:
    """A panel per cell, at most four side by side, with a line per name; the first is on top."""
    across = min(len(cells), 4)
    down = -(-len(cells) // across)
    size = 2.4 + 2.5 * across, 1.2 + (0.9 + 0.25 * len(names)) * down
    figure, grid = subplots(down, across, figsize=size, sharey=True)
    for axis, key in zip(grid.flat, cells, strict=False):
        axis.set_title(str(key), fontsize=10)
        axis.set_yticks(range(len(names)), names)
        axis.grid(axis="x", alpha=0.3)
        open_sides(axis)
    for axis in grid.flat[len(cells) :]:
        axis.set_visible(False)
    grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return figure, list(grid.flat[: len(cells)])


def finish(figure: Figure, title: str, path: Path) -> Path:
    """Title, one legend for all panels, file."""
    figure.suptitle(title, fontsize=11)
    one_legend(figure, ncol=4, loc="lower center")
    figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
    return save(figure, path)
