"""Figure 8: mean return on unseen tasks by number of gradient steps."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from omnitraining.evaluation import ENSEMBLE
from omnitraining.experiments.figures.lines import color, line_with_band

FLOWS = {"meta": ":", "joint": "--", "pre": "-."}


def draw(record: dict[str, Any], runs: Any, path: Path) -> Path:
    """One panel per environment, a line per row with its 95 % band; the reference also by flow.

    Args:
        record: as `omnitraining.experiments.reproduction` writes it.
        runs: not needed.
        path: the picture.
    """
    rows = record["rows"]
    named = dict.fromkeys(cell for row in rows.values() for cell in row["cells"])
    panels: dict[str, list[int]] = {}
    for cell in named:
        environment, step, _ = cell.split()
        panels.setdefault(environment, []).append(int(step))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(max(8, 4.4 * len(panels)), 5), squeeze=False
    )
    for axis, (environment, steps) in zip(axes[0], panels.items(), strict=True):
        for index, (row, results) in enumerate(rows.items()):
            if f"{environment} {steps[0]} steps" not in results["cells"]:
                continue
            found = [results["cells"][f"{environment} {step} steps"]["heads"] for step in steps]
            line_with_band(axis, steps, [heads[ENSEMBLE] for heads in found], index, row)
            flows = FLOWS if row == record["reference"] else {}
            for flow, line in flows.items():
                if flow in found[0]:
                    alone = [heads[flow]["mean"] for heads in found]
                    label = f"{row}, {flow}-flow alone"
                    axis.plot(steps, alone, line, color=color(index), lw=1.2, label=label)
        shown = [value for line in axis.lines for value in line.get_ydata()]
        if max(shown) < -0.1 and min(shown) < 10 * max(shown):
            # Returns that are costs: good policies differ by far less than bad ones lose.
            axis.set_yscale("symlog", linthresh=0.1)
            ticks = [-digit * 10.0**power for power in range(-1, 3) for digit in (1, 2, 5)]
            axis.yaxis.set_major_locator(FixedLocator(ticks))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_xlabel("gradient steps")
        axis.set_title(environment)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("mean return")
    labeled = {
        label: handle
        for axis in axes[0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(labeled.values()), list(labeled), ncol=3, loc="lower center", frameon=False)
    lines = -(-len(labeled) // 3)
    figure.tight_layout(rect=(0, 0.015 + 0.055 * lines, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
