"""Claims: that one row of a table is better than another, and whether the measurements say so."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Evaluation, paired_difference

Record = dict[str, Any]
Gaps = dict[str, tuple[float, float]]
"""By cell, the difference in favour of what is claimed, and the half-width of its 95 % interval."""


@dataclass(frozen=True)
class Claim:
    """One row is better than another, or at least level with it.

    Args:
        row: that is said to be better.
        above: the row that it is better than.
        level: instead: the row that it is not worse than.
        head: of the first row: a flow of it, or the ensemble.
        cells: those that it is about, by the beginning of their names; all if empty.
        of: where it is said: a table or figure of the paper.

    Raises:
        InputError: there are both or none of ``above`` and ``level``.
    """

    row: str
    above: str = ""
    level: str = ""
    head: str = ENSEMBLE
    cells: tuple[str, ...] = ()
    of: str = ""

    def __post_init__(self) -> None:
        if bool(self.above) == bool(self.level):
            raise InputError(f"claim about {self.row!r}: say 'above' or 'level', and which row")
        object.__setattr__(self, "cells", tuple(self.cells))

    @property
    def rival(self) -> str:
        return self.above or self.level

    @property
    def text(self) -> str:
        """In words."""
        flow = "" if self.head == ENSEMBLE else f", {self.head}-flow alone,"
        where = f" on {', '.join(cell.rstrip(',') for cell in self.cells)}" if self.cells else ""
        return f"{self.row}{flow} {'above' if self.above else 'level with'} {self.rival}{where}"

    def is_about(self, cell: str) -> bool:
        return not self.cells or any(f"{cell} ".startswith(f"{begin} ") for begin in self.cells)


@dataclass(frozen=True)
class Verdict:
    """What the measurements say of a claim.

    Attributes:
        word: holds if the interval excludes zero in favour of the claim in more than half of the
            cells, and in none against it; that rows are level holds if it is in none against it.
        better: cells whose interval excludes zero, in favour.
        worse: cells whose interval excludes zero, against.
        cells: all that were measured.
        is_paired: whether intervals are of differences task by task. If not, both rows count as
            independent, and since they met the same tasks, the interval is mostly too wide.
    """

    word: Literal["holds", "does not", "not measured here"]
    better: int
    worse: int
    cells: int
    is_paired: bool


def judge(claim: Claim, records: list[Record]) -> Verdict:
    """The verdict on a claim by all cells of some records.

    Args:
        claim: of the experiment.
        records: of it, as `omnitraining.records` writes them; none if it was not run.
    """
    found = [gaps(claim, record) for record in records]
    pairs = [gap for each, _ in found for gap in each.values()]
    better = sum(mean > width for mean, width in pairs)
    worse = sum(-mean > width for mean, width in pairs)
    if not pairs:
        return Verdict("not measured here", 0, 0, 0, False)
    holds = worse == 0 and (bool(claim.level) or better > len(pairs) / 2)
    is_paired = all(paired for each, paired in found if each)
    return Verdict("holds" if holds else "does not", better, worse, len(pairs), is_paired)


def gaps(claim: Claim, record: Record) -> tuple[Gaps, bool]:
    """Differences that a record has on a claim, and whether they were taken task by task.

    They are where the record was written with the claim, or where one of the rows is the reference.
    """
    rows, sign = record["rows"], 1 if record["higher_is_better"] else -1
    if claim.row not in rows or claim.rival not in rows:
        return {}, False
    paired: Gaps = {}
    for known in record.get("claims", []):
        if (known["row"], known["head"], known["rival"]) == (claim.row, claim.head, claim.rival):
            paired |= {n: (sign * g["mean"], g["interval"]) for n, g in known["cells"].items()}
    first, second = rows[claim.row]["cells"], rows[claim.rival]["cells"]
    if claim.head == ENSEMBLE and record["reference"] in (claim.row, claim.rival):
        turned = sign if record["reference"] == claim.row else -sign
        for name, cell in (second if record["reference"] == claim.row else first).items():
            if gap := cell.get("reference_minus_this"):
                paired.setdefault(name, (turned * gap["mean"], gap["interval"]))
    found: Gaps = {}
    for name, cell in first.items():
        heads, other = cell["heads"], second.get(name, {})
        if not claim.is_about(name) or cell["tasks"] != other.get("tasks"):
            continue
        if name in paired:
            found[name] = paired[name]
        elif claim.head in heads:
            one, two = heads[claim.head], other["heads"][ENSEMBLE]
            width = math.hypot(one["interval"], two["interval"])
            found[name] = (sign * (one["mean"] - two["mean"]), width)
    return found, found.keys() <= paired.keys()


def differences(claims: list[Claim], pooled: Mapping[str, Evaluation]) -> list[Record]:
    """What a record keeps of claims: row minus rival by cell, task by task.

    Args:
        claims: of the experiment; those on rows that are not there are left out.
        pooled: evaluations by row.
    """
    found: dict[tuple[str, str, str], Record] = {}
    for claim in claims:
        if claim.row not in pooled or claim.rival not in pooled:
            continue
        first, second = pooled[claim.row].cells, pooled[claim.rival].cells
        cells = {}
        for name, cell in first.items():
            other = second.get(name)
            if (
                other is None
                or other.tasks_hash != cell.tasks_hash
                or claim.head not in cell.scores
            ):
                continue
            gap = paired_difference(cell.scores[claim.head], other.scores[ENSEMBLE])
            cells[name] = {
                "mean": float(f"{gap.mean:.4g}"),
                "interval": float(f"{gap.interval:.4g}"),
            }
        found[claim.row, claim.head, claim.rival] = {
            "row": claim.row, "head": claim.head, "rival": claim.rival, "cells": cells
        }  # fmt: skip
    return [*found.values()]
