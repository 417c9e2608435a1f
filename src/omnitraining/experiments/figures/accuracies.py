"""Figure of classification results: accuracy of every method on every benchmark."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from omnitraining.experiments.figures.lines import COLORS, MARKERS, color


def draw(record: dict[str, Any], runs: Any, path: Path) -> Path:
    """One panel per number of shots; a point per method and benchmark with its 95 % interval.

    What is far below all others, as a recipe that learns nothing, would leave no room for them: its
    number stands at the edge.

    Args:
        record: as `omnitraining.experiments.reproduction` writes it.
        runs: not needed.
        path: the picture.
    """
    rows = record["rows"]
    cells = list(dict.fromkeys(cell for row in rows.values() for cell in row["cells"]))
    shots = list(dict.fromkeys(cell.split()[-1] for cell in cells))
    figure, axes = plt.subplots(
        len(shots), 1, figsize=(10, 1.2 + 3.1 * len(shots)), sharex=False, squeeze=False
    )
    # A row and the same row trained for longer, with a "+", share a color.
    kinds = list(dict.fromkeys(row.removesuffix("+") for row in rows))
    for axis, shot in zip(axes[:, 0], shots, strict=True):
        chosen = [cell for cell in cells if cell.endswith(shot)]
        fence = min(_fence(record, cell) for cell in chosen)
        for index, (row, results) in enumerate(rows.items()):
            measured = {
                place: results["cells"][cell]["heads"]["ensemble"]
                for place, cell in enumerate(chosen)
                if cell in results["cells"]
            }
            kind = kinds.index(row.removesuffix("+"))
            offset = (index - (len(rows) - 1) / 2) * 0.8 / len(rows)
            for place, value in [*measured.items()]:
                if value["mean"] < fence:
                    axis.annotate(
                        f"\u25be {measured.pop(place)['mean']:.1f}",
                        (place + offset, 0.02),
                        xycoords=("data", "axes fraction"),
                        color=color(kind),
                        ha="center",
                    )
            axis.errorbar(
                [place + offset for place in measured],
                [value["mean"] for value in measured.values()],
                [value["interval"] for value in measured.values()],
                fmt=MARKERS[kind // len(COLORS)],  # colors come again after the eighth
                markersize=8 if row == record["reference"] else 5,
                capsize=3,
                color=color(kind),
                mfc="white" if row.endswith("+") else None,
                label=row,
            )
        axis.set_xticks(range(len(chosen)), [cell.removesuffix(" " + shot) for cell in chosen])
        axis.set_xlim(-0.5, len(chosen) - 0.5)
        axis.set_ylabel(f"{shot}, {record['unit']}")
        axis.grid(axis="y", alpha=0.3)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        for place in range(1, len(chosen)):
            axis.axvline(place - 0.5, color="0.9", zorder=0)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        ncol=min(len(rows), 5),
        loc="upper center",
        frameon=False,
        bbox_to_anchor=(0.5, 0.985),
    )
    figure.suptitle(
        f"{record['title']} ({record['tasks']} tasks, {record['seeds']} seed"
        f"{'s' if record['seeds'] > 1 else ''}, 95 % intervals)",
        y=1.0,
        fontsize=11,
    )
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)
    return path


def _fence(record: dict[str, Any], cell: str) -> float:
    """Means below this are far out: six median deviations below the median, but ten points."""
    there = [row["cells"][cell] for row in record["rows"].values() if cell in row["cells"]]
    means = np.array([own["heads"]["ensemble"]["mean"] for own in there])
    middle = np.median(means)
    return float(middle - max(10.0, 6 * np.median(np.abs(means - middle))))
