"""Figure of classification results: accuracy of every method on every benchmark."""

from pathlib import Path
from typing import Any

import numpy as np

from omnitraining.evaluation import CellKey
from omnitraining.experiments.figures.canvas import one_legend, open_sides, save, subplots
from omnitraining.experiments.figures.lines import COLORS, MARKERS, color
from omnitraining.experiments.record import Record
from omnitraining.experiments.tables import against_each_row, by_shots, caption, seeds_in_short


def section(record: Record, picture: str) -> str:
    """A table per number of shots, the picture, and how often the reference is better.

    Args:
        record: of classification.
        picture: file beside the record; empty if there is none.
    """
    first = f"`{record.command}`; {caption(record)}.\n"
    figure = [f"![{record.title}]({picture})\n"] if picture else []
    return "\n".join([first, *figure, by_shots(record), against_each_row(record, "accuracy")])


def draw(record: Record, runs: Any, path: Path) -> Path:
    """One panel per number of shots; a point per method and benchmark with its 95 % interval.

    A method far below all others is shown as a number at the edge, to leave room for the others.

    Args:
        record: of classification.
        runs: not needed.
        path: the picture.
    """
    shots = list(dict.fromkeys(key.shots for key in record.keys))
    figure, axes = subplots(len(shots), 1, figsize=(10, 1.2 + 3.1 * len(shots)))
    # A row and the same row trained for longer, with a "+", share a color.
    kinds = list(dict.fromkeys(row.removesuffix("+") for row in record.rows))
    for axis, number in zip(axes[:, 0], shots, strict=True):
        chosen = [key for key in record.keys if key.shots == number]
        fence = min(_fence(record, key) for key in chosen)
        for index, (row, results) in enumerate(record.rows.items()):
            measured = {
                place: results.cells[key].ensemble
                for place, key in enumerate(chosen)
                if key in results.cells
            }
            kind = kinds.index(row.removesuffix("+"))
            offset = (index - (len(record.rows) - 1) / 2) * 0.8 / len(record.rows)
            for place, value in [*measured.items()]:
                if value.mean < fence:
                    axis.annotate(
                        f"\u25be {measured.pop(place).mean:.1f}",
                        (place + offset, 0.02),
                        xycoords=("data", "axes fraction"),
                        color=color(kind),
                        ha="center",
                    )
            axis.errorbar(
                [place + offset for place in measured],
                [value.mean for value in measured.values()],
                [value.interval for value in measured.values()],
                fmt=MARKERS[kind // len(COLORS)],  # colors come again after the eighth
                markersize=8 if row == record.reference else 5,
                capsize=3,
                color=color(kind),
                mfc="white" if row.endswith("+") else None,
                label=row,
            )
        axis.set_xticks(range(len(chosen)), [key.benchmark for key in chosen])
        axis.set_xlim(-0.5, len(chosen) - 0.5)
        axis.set_ylabel(f"{number}-shot, {record.unit}")
        axis.grid(axis="y", alpha=0.3)
        open_sides(axis)
        for place in range(1, len(chosen)):
            axis.axvline(place - 0.5, color="0.9", zorder=0)
    columns = min(len(record.rows), 5)
    one_legend(figure, ncol=columns, loc="upper center", bbox_to_anchor=(0.5, 0.985))
    words = f"{record.tasks} tasks, {seeds_in_short(record)}, 95 % intervals"
    figure.suptitle(f"{record.title} ({words})", y=1.0, fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    return save(figure, path, tight=True)


def _fence(record: Record, key: CellKey) -> float:
    """Means below this are far out: six median deviations below the median, but ten points."""
    columns = [row.cells[key] for row in record.rows.values() if key in row.cells]
    means = np.array([column.ensemble.mean for column in columns])
    middle = np.median(means)
    return float(middle - max(10.0, 6 * np.median(np.abs(means - middle))))
