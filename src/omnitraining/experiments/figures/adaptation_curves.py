"""Figure 8: mean return on unseen tasks by number of gradient steps."""

from pathlib import Path
from typing import Any

from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from omnitraining.evaluation import ENSEMBLE, CellKey
from omnitraining.experiments.figures.canvas import one_legend, save, subplots
from omnitraining.experiments.figures.lines import color, line_with_band
from omnitraining.experiments.record import Record
from omnitraining.experiments.tables import against_each_row, markdown, seeds, short_number

FLOWS = {"meta": ":", "joint": "--", "pre": "-."}


PUBLISHED = {
    "navigation-distance": [-40.41, -11.68, -3.33, -3.23],
    "cheetah-direction": [-50.69, 293.2, 313.5, 315.7],
}
"""Returns of MAML after 0 to 3 gradient steps as its authors print them [22], on their simulator.

[22] Finn, Abbeel and Levine, Model-Agnostic Meta-Learning, ICML 2017, arXiv:1703.03400.
"""


def section(record: Record, picture: str) -> str:
    """Returns by gradient steps, one table per environment; the reference also flow by flow.

    Args:
        record: of reinforcement learning.
        picture: file beside the record; empty if there is none.
    """
    parts = [
        f"**{record.title}** (`{record.command}`; return per trajectory, mean over {record.tasks} "
        f"unseen tasks, {seeds(record)}, 95 % interval {record.intervals}).\n",
        f"![return by gradient steps]({picture})\n" if picture else "",
    ]
    for environment, steps in _panels(record).items():
        keys = [CellKey(environment, steps=step) for step in steps]
        lines = []
        for name, row in record.rows.items():
            if keys[0] not in row.cells:
                continue
            heads = [ENSEMBLE, *("pre", "joint", "meta")][: 4 if name == record.reference else 1]
            for head in heads:
                title = name if head == ENSEMBLE else f"{name}, {head}-flow alone"
                means = (short_number(row.cells[key].heads[head], small=2) for key in keys)
                lines.append([title, *means])
        if environment in PUBLISHED:
            printed = [f"{value:.1f}" for value in PUBLISHED[environment]]
            lines.append(["MAML, published", *printed, *[""] * (len(steps) - len(printed))])
        parts.append(markdown([environment, *(f"{step} steps" for step in steps)], lines))
    return "\n".join([*parts, against_each_row(record, "return")])


def _panels(record: Record) -> dict[str, list[int]]:
    """Numbers of gradient steps by environment."""
    panels: dict[str, list[int]] = {}
    for key in record.keys:
        panels.setdefault(key.benchmark, []).append(key.steps or 0)
    return panels


def draw(record: Record, runs: Any, path: Path) -> Path:
    """One panel per environment, a line per row with its 95 % band; the reference also by flow.

    Args:
        record: of reinforcement learning.
        runs: not needed.
        path: the picture.
    """
    panels = _panels(record)
    figure, axes = subplots(1, len(panels), figsize=(max(8, 4.4 * len(panels)), 5))
    for axis, (environment, steps) in zip(axes[0], panels.items(), strict=True):
        keys = [CellKey(environment, steps=step) for step in steps]
        for index, (row, results) in enumerate(record.rows.items()):
            if keys[0] not in results.cells:
                continue
            heads = [results.cells[key].heads for key in keys]
            line_with_band(axis, steps, [each[ENSEMBLE] for each in heads], index, row)
            flows = FLOWS if row == record.reference else {}
            for flow, line in flows.items():
                if flow in heads[0]:
                    alone = [each[flow].mean for each in heads]
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
    lines = one_legend(figure, ncol=3, loc="lower center")
    figure.tight_layout(rect=(0, 0.015 + 0.055 * lines, 1, 1))
    return save(figure, path)
