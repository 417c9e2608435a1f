"""Tables of classification results beside those of the paper: as text, in Markdown, as a figure."""

import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
from rich.table import Table
from rich.text import Text

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from omnitraining.experiments.claims import Number, shortfall
from omnitraining.experiments.figures import accuracies
from omnitraining.experiments.records import costs
from omnitraining.io.terminal import can_show

Record = dict[str, Any]
MISSING = "–"


def table(record: Record) -> Table:
    """Rows are methods, columns benchmarks and shots; below each mean that of the paper.

    The best of our means in each column is bold. A cell without a run shows a dash.

    Args:
        record: as `omnitraining.experiments.reproduction` writes it.
    """
    grid = Table(title=f"{record['command']}: {_caption(record)}")
    grid.add_column("")
    for column in columns(record):
        grid.add_column(column.replace(" ", "\n", 1), justify="right")
    for row, cells in _texts(record, BEST, "").items():
        grid.add_row(row, *(Text("\n").join(map(_styled, lines)) for lines in cells))
    return grid


BEST = "\0"
"""Stands before the best mean of a column on its way to a terminal, where no text has it."""


def _styled(line: str) -> Text:
    """A line of a cell as rich shows it."""
    shown = line if can_show("±", sys.stdout) else line.replace("±", "+/-")
    return Text(shown.removeprefix(BEST), "bold" if line.startswith(BEST) else "")


def markdown(record: Record) -> str:
    """The same table in Markdown, below a line that says what it is.

    Args:
        record: as `omnitraining.experiments.reproduction` writes it.
    """
    title = f"**{record['title']}** (`{record['command']}`; {_caption(record)})."
    spent = costs(record)
    header = ["", *columns(record), *(["training, by setting"] if spent else [])]
    lines = [header, ["---"] * len(header)]
    for row, cells in _texts(record, "**", "**").items():
        beside = ["<br>".join(spent[row])] if spent else []
        lines.append([row, *("<br>".join(texts) for texts in cells), *beside])
    return "\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def draw(record: Record, runs: Any, path: Path) -> Path:
    """One panel per cell: a point per method with its 95 % interval, and the paper's beside it.

    Without numbers of the paper it is the figure of `accuracies`.

    Args:
        record: as `omnitraining.experiments.reproduction` writes it.
        runs: not needed.
        path: the picture.
    """
    rows = record["rows"]
    if not any("paper" in row for row in rows.values()):
        return accuracies.draw(record, runs, path)
    cells, names = columns(record), list(rows)
    figure, axes = panels(cells, names)
    here: dict[str, Any] = {"fmt": "o", "color": "tab:blue"}
    there: dict[str, Any] = {"fmt": "D", "color": "tab:orange", "mfc": "white"}
    styles = (("here", ours, here, -0.13), ("paper", printed, there, 0.13))
    for axis, cell in zip(axes, cells, strict=True):
        for label, source, style, offset in styles:
            found = {i: source(rows[name]).get(cell) for i, name in enumerate(names)}
            points = [(i, value) for i, value in found.items() if value is not None]
            axis.errorbar(
                [value[0] for _, value in points],
                [i + offset for i, _ in points],
                xerr=[value[1] or 0.0 for _, value in points],
                markersize=5,
                capsize=2,
                label=label,
                **style,
            )
    return finish(figure, f"{record['title']}\n{_caption(record)}", path)


def panels(cells: list[str], names: list[str]) -> tuple[Figure, list[Axes]]:
    """A panel per cell, at most four side by side, with a line per name; the first is on top."""
    across = min(len(cells), 4)
    down = -(-len(cells) // across)
    size = 2.4 + 2.5 * across, 1.2 + (0.9 + 0.25 * len(names)) * down
    figure, grid = plt.subplots(down, across, figsize=size, sharey=True, squeeze=False)
    for axis, cell in zip(grid.flat, cells, strict=False):
        axis.set_title(cell, fontsize=10)
        axis.set_yticks(range(len(names)), names)
        axis.grid(axis="x", alpha=0.3)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    for axis in grid.flat[len(cells) :]:
        axis.set_visible(False)
    grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return figure, list(grid.flat[: len(cells)])


def finish(figure: Figure, title: str, path: Path) -> Path:
    """Title, one legend for all panels, file."""
    labels = {
        label: handle
        for axis in figure.axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.suptitle(title, fontsize=11)
    figure.legend(labels.values(), labels.keys(), ncol=4, loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def columns(record: Record) -> list[str]:
    """Cells of the table as "cub 5-shot", those of one benchmark side by side."""
    met = [cell for row in record["rows"].values() for cell in (*printed(row), *ours(row))]
    benchmarks = list(dict.fromkeys(cell.split()[0] for cell in met))
    return sorted(dict.fromkeys(met), key=lambda cell: benchmarks.index(cell.split()[0]))


def _texts(record: Record, begin: str, end: str) -> dict[str, list[list[str]]]:
    """Lines of text of every cell by row; the best of our means stands between two marks."""
    rows, cells = record["rows"], columns(record)
    means = {row: ours(results) for row, results in rows.items()}
    choose = max if record["higher_is_better"] else min
    best = {
        cell: choose((found[cell][0] for found in means.values() if cell in found), default=None)
        for cell in cells
    }
    texts: dict[str, list[list[str]]] = {}
    for row, results in rows.items():
        papers = printed(results)
        texts[row] = []
        for cell in cells:
            number = means[row].get(cell)
            text = MISSING if number is None else number_text(number)
            if number is not None and number[0] == best[cell]:
                text = f"{begin}{text}{end}"
            beside = [f"paper {number_text(papers[cell])}"] if cell in papers else []
            if beside and number is not None and record.get("yardstick"):
                beside.append(verdict(number, papers[cell]))
            texts[row].append([text, *beside])
    return texts


def ours(results: Record) -> dict[str, tuple[float, float]]:
    """Mean and interval by cell; the number of ways is left out of its name.

    Args:
        results: a row of a record.
    """
    found = {}
    for name, cell in results["cells"].items():
        head = cell["heads"]["ensemble"]
        found[re.sub(r" \d+-way", "", name)] = (head["mean"], head["interval"])
    return found


def printed(results: Record) -> dict[str, Number]:
    """What the paper prints of a row, by cell.

    Args:
        results: a row of a record, or of an experiment.
    """
    return {cell: (*given, None)[:2] for cell, given in results.get("paper", {}).items()}


def number_text(number: Number) -> str:
    """A mean with its interval, if there is one."""
    mean, half = number
    return f"{mean:.2f}" if half is None else f"{mean:.2f} ± {half:.2f}"


def verdict(ours: Number, published: Number) -> str:
    """Whether a published number is reached, in words."""
    short = shortfall(ours, published)
    return f"{short:.1f} short" if short else "reached"


def _caption(record: Record) -> str:
    seeds = f"{record['seeds']} seed" + "s" * (record["seeds"] > 1)
    over = record.get("intervals", "over tasks")
    return f"{record['unit']}, {record['tasks']} tasks, {seeds}, 95 % intervals {over}"
