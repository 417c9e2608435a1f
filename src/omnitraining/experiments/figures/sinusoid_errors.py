"""Figure 5: mean squared error on unseen waves by gradient steps and support points."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from omnitraining.evaluation import ENSEMBLE
from omnitraining.experiments.figures.lines import color, line_with_band


def draw(record: dict[str, Any], runs: Any, path: Path) -> Path:
    """One panel per K, log scale; Omni-Training also by its meta-flow alone, dotted.

    Args:
        record: as `omnitraining.experiments.reproduction` writes it.
        runs: not needed.
        path: the picture.
    """
    rows = record["rows"]
    cells = [cell.split() for cell in next(iter(rows.values()))["cells"]]
    panels = list(dict.fromkeys(shots for shots, *_ in cells))
    steps = list(dict.fromkeys(int(step) for _, step, _ in cells))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4), sharey=True)
    for axis, shots in zip(axes, panels, strict=True):
        for index, (row, results) in enumerate(rows.items()):
            found = [results["cells"][f"{shots} {step} steps"]["heads"] for step in steps]
            line_with_band(axis, steps, [heads[ENSEMBLE] for heads in found], index, row)
            if row == record["reference"]:
                alone = [heads["meta"]["mean"] for heads in found]
                axis.plot(steps, alone, ":", color=color(index), label=f"{row}, meta-flow alone")
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
