"""Every algorithm alone and inside Omni-Training: the counterpart of the paper's Figure 9c."""

from pathlib import Path
from typing import Any

from omnitraining.experiments.figures.tables import columns, finish, ours, panels

Record = dict[str, Any]


def pairs(record: Record) -> dict[str, str]:
    """Rows of Omni-Training, each with the row of its meta-training algorithm alone.

    Args:
        record: as `omnitraining.experiments.reproduction` writes it.
    """
    configs = {row: configuration(results) for row, results in record["rows"].items()}
    found = {}
    for omni, config in configs.items():
        for alone, other in configs.items():
            same = config["metatraining"] == other["metatraining"]
            bare = config["backbone"] == other["backbone"]
            methods = config["method"], other["method"]
            if same and bare and methods == ("omni-training", "meta-training"):
                found[omni] = alone
    return found


def verdicts(record: Record, rival: str = "baseline") -> list[tuple[str, str, int, int, int]]:
    """Per row of Omni-Training and rival: cells compared, cells above, and those clearly above.

    Clearly above means that the intervals are disjoint.

    Args:
        record: as `omnitraining.experiments.reproduction` writes it.
        rival: the row that all are compared with, beside their own algorithm alone.
    """
    lines = []
    for omni, alone in pairs(record).items():
        for other in (alone, rival):
            if other not in record["rows"]:
                continue
            first, second = ours(record["rows"][omni]), ours(record["rows"][other])
            gaps = [
                (first[cell][0] - second[cell][0], first[cell][1] + second[cell][1])
                for cell in first
                if cell in second
            ]
            above = sum(gap > 0 for gap, _ in gaps)
            lines.append((omni, other, len(gaps), above, sum(gap > width for gap, width in gaps)))
    return lines


def draw(record: Record, runs: Any, path: Path) -> Path:
    """A panel per cell: each algorithm alone, hollow, and inside Omni-Training, filled.

    Rows without a partner are points of their own; a line marks the best of all that is not
    Omni-Training. What is below every rival, as a recipe that learns nothing, would leave no room
    for the others: its number stands at the edge.

    Args:
        record: as `omnitraining.experiments.reproduction` writes it.
        runs: not needed.
        path: the picture.
    """
    rows, cells = record["rows"], columns(record)
    inside = {alone: omni for omni, alone in pairs(record).items()}
    names = [*inside, *(row for row in rows if row not in {*inside, *inside.values()})]
    figure, axes = panels(cells, names)
    for axis, cell in zip(axes, cells, strict=True):
        singles = {name: ours(rows[name]).get(cell) for name in names}
        rivals = {n for n in names if configuration(rows[n])["method"] != "omni-training"}
        if there := [own[0] for name, own in singles.items() if own and name in rivals]:
            axis.axvline(max(there), color="0.6", linestyle=":", label="best without Omni")
        lowest = min(there, default=0.0)
        for place, name in enumerate(names):
            partner = ours(rows[inside[name]]).get(cell) if name in inside else None
            single = singles[name]
            if single and partner:
                ends = single[0], partner[0]
                axis.plot(ends, (place, place), color="tab:blue", linewidth=3, alpha=0.25)
            own = ("white", "alone") if name in rivals else ("tab:blue", "Omni")
            if single and single[0] < lowest:
                axis.annotate(
                    f"\u25c2 {single[0]:.1f}",
                    (0.02, place),
                    xycoords=("axes fraction", "data"),
                    color="tab:blue",
                    va="center",
                )
                single = None
            for number, fill, label in ((single, *own), (partner, "tab:blue", "Omni")):
                if number:
                    axis.errorbar(
                        number[0],
                        place,
                        xerr=number[1],
                        fmt="o",
                        color="tab:blue",
                        mfc=fill,
                        markersize=6,
                        capsize=2,
                        label=label,
                    )
    return finish(figure, f"{record['title']}\naccuracy %, 95 % intervals over tasks", path)


def configuration(results: Record) -> Record:
    """The configuration of a row of a record; of its first setting where there are several."""
    config: Record = results["config"] if "config" in results else next(
        iter(results["settings"].values())
    )["config"]  # fmt: skip
    return config
