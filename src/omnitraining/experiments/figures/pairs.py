"""Every algorithm alone and inside Omni-Training: the counterpart of the paper's Figure 9c."""

from pathlib import Path
from typing import Any

from omnitraining.experiments.figures.tables import finish, panels
from omnitraining.experiments.record import Record
from omnitraining.experiments.tables import columns, markdown, means, record_markdown


def section(record: Record, picture: str) -> str:
    """All rows, the picture, and which row is above which.

    Args:
        record: with rows alone and inside Omni-Training.
        picture: file beside the record; empty if there is none.
    """
    words = "each algorithm alone and inside Omni-Training"
    lines = [
        [omni, other, f"{above} of {cells}", f"{clear} of {cells}"]
        for omni, other, cells, above, clear in leads(record)
    ]
    figure = [f"![{words}]({picture})\n"] if picture else []
    table = markdown(["row", "against", "above", "above, intervals disjoint"], lines)
    return "\n".join([record_markdown(record), *figure, table])


def pairs(record: Record) -> dict[str, str]:
    """Rows of Omni-Training, each with the row of its meta-training algorithm alone."""
    configs = {name: row.training.config for name, row in record.rows.items()}
    partners = {}
    for omni, config in configs.items():
        for alone, other in configs.items():
            same = config["metatraining"] == other["metatraining"]
            bare = config["backbone"] == other["backbone"]
            methods = config["method"], other["method"]
            if same and bare and methods == ("omni-training", "meta-training"):
                partners[omni] = alone
    return partners


def leads(record: Record, rival: str = "baseline") -> list[tuple[str, str, int, int, int]]:
    """Per row of Omni-Training and rival: numbers of cells compared, above, and clearly above.

    Clearly above means that the intervals are disjoint.

    Args:
        record: with rows alone and inside Omni-Training.
        rival: the row that all are compared with, beside their own algorithm alone.
    """
    lines = []
    for omni, alone in pairs(record).items():
        for other in (alone, rival):
            if other not in record.rows:
                continue
            first, second = means(record.rows[omni]), means(record.rows[other])
            gaps = [
                (first[key].mean - second[key].mean, first[key].interval + second[key].interval)
                for key in first
                if key in second
            ]
            above = sum(gap > 0 for gap, _ in gaps)
            lines.append((omni, other, len(gaps), above, sum(gap > width for gap, width in gaps)))
    return lines


def draw(record: Record, runs: Any, path: Path) -> Path:
    """A panel per cell: each algorithm alone, hollow, and inside Omni-Training, filled.

    Rows without a partner are single points; a line marks the best row that is not Omni-Training.
    A row below every rival is shown as a number at the edge, to leave room for the others.

    Args:
        record: with rows alone and inside Omni-Training.
        runs: not needed.
        path: the picture.
    """
    rows, cells = record.rows, columns(record)
    inside = {alone: omni for omni, alone in pairs(record).items()}
    names = [*inside, *(row for row in rows if row not in {*inside, *inside.values()})]
    rivals = {n for n in names if rows[n].training.config["method"] != "omni-training"}
    figure, axes = panels(cells, names)
    for axis, key in zip(axes, cells, strict=True):
        singles = {name: means(rows[name]).get(key) for name in names}
        there = [own.mean for name, own in singles.items() if own and name in rivals]
        if there:
            axis.axvline(max(there), color="0.6", linestyle=":", label="best without Omni")
        lowest = min(there, default=0.0)
        for place, name in enumerate(names):
            partner = means(rows[inside[name]]).get(key) if name in inside else None
            single = singles[name]
            if single and partner:
                ends = single.mean, partner.mean
                axis.plot(ends, (place, place), color="tab:blue", linewidth=3, alpha=0.25)
            own = ("white", "alone") if name in rivals else ("tab:blue", "Omni")
            if single and single.mean < lowest:
                axis.annotate(
                    f"\u25c2 {single.mean:.1f}",
                    (0.02, place),
                    xycoords=("axes fraction", "data"),
                    color="tab:blue",
                    va="center",
                )
                single = None
            for number, fill, label in ((single, *own), (partner, "tab:blue", "Omni")):
                if number:
                    axis.errorbar(
                        number.mean,
                        place,
                        xerr=number.interval,
                        fmt="o",
                        color="tab:blue",
                        mfc=fill,
                        markersize=6,
                        capsize=2,
                        label=label,
                    )
    return finish(figure, f"{record.title}\naccuracy %, 95 % intervals over tasks", path)
