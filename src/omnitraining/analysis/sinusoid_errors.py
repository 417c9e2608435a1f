"""Figure 5: mean squared error on unseen waves by gradient steps and support points."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(record: dict[str, Any], runs: Any, path: Path) -> Path:
    """One panel per K, log scale; Omni-Training also by its meta-flow alone, dashed.

    Args:
        record: as `omnitraining.reproduction` writes it.
        runs: not needed.
        path: the picture.
    """
    rows = record["rows"]
    cells = [cell.split() for cell in next(iter(rows.values()))["cells"]]
    panels = list(dict.fromkeys(shots for shots, *_ in cells))
    steps = list(dict.fromkeys(int(step) for _, step, _ in cells))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4), sharey=True)
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    for axis, shots in zip(axes, panels, strict=True):
        for index, (row, results) in enumerate(rows.items()):
            heads = {"ensemble": "-"}
            if row == record["reference"]:
                heads["meta"] = ":"
            for head, line in heads.items():
                values = [results["cells"][f"{shots} {s} steps"]["heads"][head] for s in steps]
                means = [value["mean"] for value in values]
                spread = [value["interval"] for value in values]
                label = row if head == "ensemble" else f"{row}, meta-flow alone"
                colour = colours[index % len(colours)]
                axis.plot(steps, means, line, marker="o", ms=3, color=colour, label=label)
                axis.fill_between(
                    steps,
                    [m - s for m, s in zip(means, spread, strict=True)],
                    [m + s for m, s in zip(means, spread, strict=True)],
                    color=colour,
                    alpha=0.15,
                    linewidth=0,
                )
        axis.set_yscale("log")
        axis.set_xlabel("gradient steps")
        axis.set_title(shots)
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("mean squared error (log scale)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncol=3, loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
