"""Figure of a sweep: results by the values of one field, or of two, as in the paper's Figure 12."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

from omnitraining.experiments.figures.canvas import open_sides, save, subplots
from omnitraining.experiments.record import Record, Row
from omnitraining.experiments.tables import caption, markdown, seeds_in_short, short_number

ACROSS = 3
MOST_MAPS = 12


def can_draw(record: Record) -> bool:
    """Whether one or two fields were varied, all their values are numbers, and there are tasks."""
    rows = [row.varied for row in record.rows.values()]
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool)
        for row in rows
        for value in row.values()
    )
    return record.tasks > 0 and len(rows) > 1 and len(rows[0]) in (1, 2) and numbers


def draw(record: Record, runs: Any, path: Path) -> Path:
    """Curves over the values of one field; or maps, with the values of two fields at their sides.

    Values are placed at equal distances, in the order in which they were listed.

    Args:
        record: of a sweep, as `can_draw` accepts it.
        runs: not needed.
        path: the picture.
    """
    two = len(next(iter(record.rows.values())).varied) == 2
    figure = _maps(record) if two else _curves(record)
    shown = "colors span the 95 % intervals at least" if two else "95 % intervals over tasks"
    words = f"{record.unit}, {record.tasks} tasks, {seeds_in_short(record)}, {shown}"
    figure.suptitle(f"{record.title}\n{words}", fontsize=11)
    return save(figure, path)


def section(record: Record, picture: str) -> str:
    """Results by the values that were varied, and the runs that failed.

    Args:
        record: of a sweep.
        picture: file beside the record; empty if there is none.
    """
    keys, lines = record.keys, []
    for name, row in record.rows.items():
        means = (short_number(row.cells[key].ensemble) if key in row.cells else "" for key in keys)
        lines.append([name, ", ".join(map(str, row.of_seeds)), *means])
    failed = [f"- {name}: {reason}" for name, reason in (record.failed or {}).items()]
    parts = [
        f"`{record.command}`; {caption(record)}, mean over seeds.\n",
        markdown(["", "seeds", *map(str, keys)], lines),
        f"![{record.title}]({picture})\n" if picture else "",
        "\n".join(["Runs that failed:\n", *failed, ""]) if failed else "",
    ]
    return "\n".join(filter(None, parts))


def _curves(record: Record) -> Any:
    """A panel per benchmark with a curve per number of shots or steps."""
    rows = sorted(record.rows.values(), key=lambda row: _values(row)[0])
    (field,) = rows[0].varied
    keys = [*rows[0].cells]
    benchmarks = list(dict.fromkeys(key.benchmark for key in keys))
    figure, axes = _grid(len(benchmarks), 3.0)
    markers = "osD^v<>pPX"
    for axis, benchmark in zip(axes, benchmarks, strict=True):
        chosen = [key for key in keys if key.benchmark == benchmark]
        shades = [0.85 * i / max(1, len(chosen) - 1) for i in range(20)]
        colors = matplotlib.colormaps["viridis"](shades)
        for i, key in enumerate(chosen):
            means = [row.cells[key].ensemble for row in rows]
            axis.errorbar(
                range(len(rows)),
                [mean.mean for mean in means],
                [mean.interval for mean in means],
                marker=markers[i % len(markers)],
                color=colors[i],
                capsize=3,
                label=str(replace(key, benchmark="")) or benchmark,
            )
        axis.set_title(benchmark, fontsize=10)
        axis.set_xticks(range(len(rows)), [f"{_values(row)[0]:g}" for row in rows])
        axis.set_xlabel(field)
        axis.set_ylabel(record.unit)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
        open_sides(axis)
    return figure


def _maps(record: Record) -> Any:
    """A panel per cell: means in color and in print, bright is better.

    If there are many cells, only the last of every benchmark is shown, with most shots or steps.
    """
    rows = [*record.rows.values()]
    first, second = rows[0].varied
    down, across = (sorted({_values(row)[i] for row in rows}) for i in (0, 1))
    keys = [*rows[0].cells]
    if len(keys) > MOST_MAPS:
        keys = [*{key.benchmark: key for key in keys}.values()]
    figure, axes = _grid(len(keys), 1.3 + 0.45 * len(down))
    colors = "cividis" if record.higher_is_better else "cividis_r"
    for axis, key in zip(axes, keys, strict=True):
        columns = {_values(row): row.cells[key].ensemble for row in rows}
        means = {values: mean.mean for values, mean in columns.items()}
        # Colors span the intervals at least, so that insignificant differences have similar colors.
        middle = (max(means.values()) + min(means.values())) / 2
        widest = max(mean.interval for mean in columns.values())
        half = max((max(means.values()) - min(means.values())) / 2, widest, 1e-9)
        grid = [[means.get((y, x), float("nan")) for x in across] for y in down]
        shown = axis.imshow(
            grid, cmap=colors, aspect="auto", vmin=middle - half, vmax=middle + half
        )
        for (y, x), mean in means.items():
            place = across.index(x), down.index(y)
            dark = (shown.norm(mean) < 0.5) == record.higher_is_better
            color = "white" if dark else "black"
            axis.text(*place, f"{mean:#.3g}", ha="center", va="center", color=color, fontsize=8)
        axis.set_title(str(key), fontsize=10)
        axis.set_xticks(range(len(across)), [f"{x:g}" for x in across])
        axis.set_yticks(range(len(down)), [f"{y:g}" for y in down])
        axis.set_xlabel(second)
        axis.set_ylabel(first)
    return figure


def _grid(panels: int, height: float) -> tuple[Any, list[Any]]:
    across = 2 if panels == 4 else min(panels, ACROSS)
    lines = -(-panels // across)
    size = max(5.0, 3.6 * across), 0.6 + height * lines
    figure, grid = subplots(lines, across, figsize=size, layout="constrained")
    for axis in grid.flat[panels:]:
        axis.set_visible(False)
    return figure, list(grid.flat[:panels])


def _values(row: Row) -> tuple[float, ...]:
    return tuple(row.varied.values())
