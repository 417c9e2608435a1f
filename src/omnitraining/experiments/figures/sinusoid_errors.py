"""Figure 5: mean squared error on unseen waves by gradient steps and support points."""

from pathlib import Path
from typing import Any

from omnitraining.evaluation import CellKey
from omnitraining.experiments.figures.canvas import one_legend, save, subplots
from omnitraining.experiments.figures.lines import color, line_with_band
from omnitraining.experiments.record import Record
from omnitraining.experiments.tables import against_each_row, markdown, seeds, short_number


def section(record: Record, picture: str) -> str:
    """Errors by support points and steps, the reference also flow by flow.

    Args:
        record: of sinusoids.
        picture: file beside the record; empty if there is none.
    """
    reference = record.rows[record.reference]
    keys = [k for k in reference.cells if k.shots in (5, 20) and k.steps in (1, 2, 5, 10)]
    lines = []
    for name, row in record.rows.items():
        lines.append([name, *(short_number(row.cells[key].ensemble) for key in keys)])
        for flow in ("pre", "joint", "meta") if name == record.reference else ():
            means = (short_number(row.cells[key].heads[flow]) for key in keys)
            lines.append([f"{name}, {flow}-flow alone", *means])
    first = (
        f"**{record.title}** (`{record.command}`; mean squared error on {record.tasks} unseen "
        f"waves, {'mean of ' * (record.seeds > 1)}{seeds(record)}).\n"
    )
    parts = [
        first,
        f"![error by gradient steps]({picture})\n" if picture else "",
        markdown(["", *map(str, keys)], lines),
        "Columns: support points (shots) and gradient steps.\n",
        against_each_row(record, "error"),
    ]
    return "\n".join(filter(None, parts))


def draw(record: Record, runs: Any, path: Path) -> Path:
    """One panel per K, log scale; Omni-Training also by its meta-flow alone, dotted.

    Args:
        record: of sinusoids.
        runs: not needed.
        path: the picture.
    """
    panels = list(dict.fromkeys(key.shots for key in record.keys))
    steps = [step for step in dict.fromkeys(key.steps for key in record.keys) if step is not None]
    figure, axes = subplots(1, len(panels), figsize=(4.2 * len(panels), 4), sharey=True)
    for axis, shots in zip(axes[0], panels, strict=True):
        for index, (row, results) in enumerate(record.rows.items()):
            columns = [results.cells[CellKey(shots=shots, steps=step)] for step in steps]
            line_with_band(axis, steps, [column.ensemble for column in columns], index, row)
            if row == record.reference:
                alone = [column.heads["meta"].mean for column in columns]
                axis.plot(steps, alone, ":", color=color(index), label=f"{row}, meta-flow alone")
        axis.set_yscale("log")
        axis.set_xlabel("gradient steps")
        axis.set_title(f"K={shots}")
        axis.grid(alpha=0.3, which="both")
    axes[0, 0].set_ylabel("mean squared error (log scale)")
    lines = one_legend(figure, ncol=3, loc="lower center")
    figure.tight_layout(rect=(0, 0.03 + 0.05 * lines, 1, 1))
    return save(figure, path)
