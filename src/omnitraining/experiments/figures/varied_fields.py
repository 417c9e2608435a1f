"""Figure of a sweep: results by the values of one field, or of two, as in the paper's Figure 12."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Record = dict[str, Any]

ACROSS = 3
MOST_MAPS = 12


def can_draw(record: Record) -> bool:
    """Whether one or two fields were varied, all their values are numbers, and there are tasks.

    Args:
        record: as `omnitraining.experiments.sweeping` writes it.
    """
    rows = [row["varied"] for row in record["rows"].values()]
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool)
        for row in rows
        for value in row.values()
    )
    return record["tasks"] > 0 and len(rows) > 1 and len(rows[0]) in (1, 2) and numbers


def draw(record: Record, runs: Any, path: Path) -> Path:
    """Curves over the values of one field; or maps, with the values of two fields at their sides.

    Values stand at equal distances, as they were listed, whatever they are.

    Args:
        record: as `omnitraining.experiments.sweeping` writes it, and `can_draw` admits it.
        runs: not needed.
        path: the picture.
    """
    two = len(next(iter(record["rows"].values()))["varied"]) == 2
    figure = _maps(record) if two else _curves(record)
    seeds = f"{record['seeds']} seed" + "s" * (record["seeds"] > 1)
    shown = "colors span the 95 % intervals at least" if two else "95 % intervals over tasks"
    words = f"{record['unit']}, {record['tasks']} tasks, {seeds}, {shown}"
    figure.suptitle(f"{record['title']}\n{words}", fontsize=11)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _curves(record: Record) -> Any:
    """A panel per benchmark with a curve per number of shots or steps."""
    rows = sorted(record["rows"].values(), key=lambda row: _values(row)[0])
    (field,) = rows[0]["varied"]
    names = [*rows[0]["cells"]]
    benchmarks = list(dict.fromkeys(name.split()[0] for name in names))
    figure, axes = _grid(len(benchmarks), 3.0)
    markers = "osD^v<>pPX"
    for axis, benchmark in zip(axes, benchmarks, strict=True):
        chosen = [name for name in names if name.split()[0] == benchmark]
        colors = plt.get_cmap("viridis")([0.85 * i / max(1, len(chosen) - 1) for i in range(20)])
        for i, name in enumerate(chosen):
            heads = [row["cells"][name]["heads"]["ensemble"] for row in rows]
            axis.errorbar(
                range(len(rows)),
                [head["mean"] for head in heads],
                [head["interval"] for head in heads],
                marker=markers[i % len(markers)],
                color=colors[i],
                capsize=3,
                label=name.removeprefix(benchmark).strip() or benchmark,
            )
        axis.set_title(benchmark, fontsize=10)
        axis.set_xticks(range(len(rows)), [f"{_values(row)[0]:g}" for row in rows])
        axis.set_xlabel(field)
        axis.set_ylabel(record["unit"])
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return figure


def _maps(record: Record) -> Any:
    """A panel per cell: means in color and in print, bright is better.

    Of many cells it is the last of every benchmark, that of most shots or steps.
    """
    rows = [*record["rows"].values()]
    first, second = rows[0]["varied"]
    down, across = (sorted({_values(row)[i] for row in rows}) for i in (0, 1))
    names = [*rows[0]["cells"]]
    if len(names) > MOST_MAPS:
        names = [*{name.split()[0]: name for name in names}.values()]
    figure, axes = _grid(len(names), 1.3 + 0.45 * len(down))
    colors = "cividis" if record["higher_is_better"] else "cividis_r"
    for axis, name in zip(axes, names, strict=True):
        heads = {_values(row): row["cells"][name]["heads"]["ensemble"] for row in rows}
        found = {values: head["mean"] for values, head in heads.items()}
        # Colors span the intervals at least, so that what is not told apart looks alike.
        middle = (max(found.values()) + min(found.values())) / 2
        widest = max(head["interval"] for head in heads.values())
        half = max((max(found.values()) - min(found.values())) / 2, widest, 1e-9)
        grid = [[found.get((y, x), float("nan")) for x in across] for y in down]
        shown = axis.imshow(
            grid, cmap=colors, aspect="auto", vmin=middle - half, vmax=middle + half
        )
        for (y, x), mean in found.items():
            place = across.index(x), down.index(y)
            dark = shown.norm(mean) < 0.5 if record["higher_is_better"] else shown.norm(mean) > 0.5
            color = "white" if dark else "black"
            axis.text(*place, f"{mean:#.3g}", ha="center", va="center", color=color, fontsize=8)
        axis.set_title(name, fontsize=10)
        axis.set_xticks(range(len(across)), [f"{x:g}" for x in across])
        axis.set_yticks(range(len(down)), [f"{y:g}" for y in down])
        axis.set_xlabel(second)
        axis.set_ylabel(first)
    return figure


def _grid(panels: int, height: float) -> tuple[Any, list[Any]]:
    across = 2 if panels == 4 else min(panels, ACROSS)
    lines = -(-panels // across)
    size = max(5.0, 3.6 * across), 0.6 + height * lines
    figure, grid = plt.subplots(lines, across, figsize=size, squeeze=False, layout="constrained")
    for axis in grid.flat[panels:]:
        axis.set_visible(False)
    return figure, list(grid.flat[:panels])


def _values(row: Record) -> tuple[float, ...]:
    return tuple(row["varied"].values())
