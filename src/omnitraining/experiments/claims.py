"""Claims: that one row of a table is better than another, and whether the measurements say so."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Evaluation, paired_difference

Record = dict[str, Any]
Gaps = dict[str, tuple[float, float]]
"""By cell, the difference in favor of what is claimed, and the half-width of its 95 % interval."""


Number = tuple[float, float | None]
"""A mean and its interval, as far as one is known."""


@dataclass(frozen=True)
class Claim:
    """One row is better than another, or level with it.

    Args:
        row: that is said to be better.
        above: the row that it is better than.
        level: instead: the row that it is level with, neither better nor worse.
        margin: with ``level``: the largest difference that still counts as level, in the unit of
            the record.
        head: of the first row: a flow of it, or the ensemble.
        cells: those that it is about, by the beginning of their names; all if empty.
        of: where it is said: a table or figure of the paper.

    Raises:
        InputError: there are both or none of ``above`` and ``level``, or no margin with the latter.
    """

    row: str
    above: str = ""
    level: str = ""
    margin: float = 0.0
    head: str = ENSEMBLE
    cells: tuple[str, ...] = ()
    of: str = ""

    def __post_init__(self) -> None:
        if bool(self.above) == bool(self.level):
            raise InputError(f"claim about {self.row!r}: say 'above' or 'level', and which row")
        if bool(self.level) != (self.margin > 0):
            raise InputError(
                f"claim about {self.row!r}: give a margin above 0 with 'level', and only with it"
            )
        object.__setattr__(self, "cells", tuple(self.cells))

    @property
    def rival(self) -> str:
        return self.above or self.level

    @property
    def text(self) -> str:
        """In words."""
        flow = "" if self.head == ENSEMBLE else f", {self.head}-flow alone,"
        where = f" on {', '.join(cell.rstrip(',') for cell in self.cells)}" if self.cells else ""
        words = f"within {self.margin:g} of" if self.level else "above"
        return f"{self.row}{flow} {words} {self.rival}{where}"

    def is_about(self, cell: str) -> bool:
        return not self.cells or any(f"{cell} ".startswith(f"{begin} ") for begin in self.cells)


@dataclass(frozen=True)
class Verdict:
    """What the measurements say of a claim.

    Attributes:
        word: a claim that a row is above holds if the interval of the difference excludes zero in
            its favor in more than half of the cells, and against it in none. That rows are level
            holds if the whole interval is within the margin in more than half of the cells, and
            the whole interval beyond it in none. Where it would hold, but the row was trained for
            more than `EQUAL` times the multiply-adds of its rival, or they were not counted, it is
            "not at equal compute".
        better: cells whose interval excludes zero, in favor; of a level claim, those within the
            margin.
        worse: cells whose interval excludes zero, against; of a level claim, those beyond the
            margin.
        cells: all that were measured.
        is_paired: whether intervals are of differences task by task. If not, both rows count as
            independent, and since they met the same tasks, the interval is mostly too wide.
        compute: multiply-adds of the row's training, as a multiple of those of the rival's, the
            largest of all settings; None where they were not counted.
    """

    word: Literal["holds", "does not", "not at equal compute", "not measured here"]
    better: int
    worse: int
    cells: int
    is_paired: bool
    compute: float | None = None


def shortfall(ours: Number, published: Number) -> float:
    """How far a rival of ours falls short of its published number; 0 if it is reached.

    It is reached if our mean plus its interval is not below the published mean minus its own.

    Args:
        ours: mean and half-width of its interval; None counts as 0.
        published: the same of its authors.
    """
    (mean, half), (wanted, its_half) = ours, published
    return max(0.0, wanted - (its_half or 0.0) - mean - (half or 0.0))


EQUAL = 1.1
"""Compute counts as equal up to this ratio, since training ends at whole epochs."""


def judge(claim: Claim, records: list[Record]) -> Verdict:
    """The verdict on a claim by all cells of some records.

    Args:
        claim: of the experiment.
        records: of it, as `omnitraining.experiments.records` writes them; none if it was not run.
    """
    found = [gaps(claim, record) for record in records]
    pairs = [gap for each, _ in found for gap in each.values()]
    if not pairs:
        return Verdict("not measured here", 0, 0, 0, False)
    if claim.level:
        better = sum(abs(mean) + width <= claim.margin for mean, width in pairs)
        worse = sum(abs(mean) - width > claim.margin for mean, width in pairs)
    else:
        better = sum(mean > width for mean, width in pairs)
        worse = sum(-mean > width for mean, width in pairs)
    holds = worse == 0 and better > len(pairs) / 2
    used = [record for record, (each, _) in zip(records, found, strict=True) if each]
    ratios = [
        compute_ratio(record["rows"][claim.row], record["rows"][claim.rival]) for record in used
    ]
    compute = None if None in ratios else max(ratio for ratio in ratios if ratio is not None)
    word: Literal["holds", "does not", "not at equal compute"] = "holds" if holds else "does not"
    if holds and (compute is None or compute > EQUAL):
        word = "not at equal compute"
    is_paired = all(paired for each, paired in found if each)
    return Verdict(word, better, worse, len(pairs), is_paired, compute)


def compute_ratio(row: Record, rival: Record) -> float | None:
    """Multiply-adds that a row was trained for, over those of its rival, the largest by setting.

    Args:
        row: of a record.
        rival: another one.

    Returns:
        The ratio, or None where they were not counted or the two have no setting in common.
    """
    ones, others = (each.get("settings", {"": each}) for each in (row, rival))
    both = [
        (training_cost(ones[name]), training_cost(others[name])) for name in ones if name in others
    ]
    if not both or any(one is None or other is None for one, other in both):
        return None
    return max(one / other for one, other in both if one is not None and other)


def training_cost(facts: Record) -> float | None:
    """Multiply-adds of a training, on average over seeds; None where they were not counted.

    Args:
        facts: what a record has of the runs of a row in one setting.
    """
    step, steps = facts.get("multiply_adds_per_step"), facts.get("steps")
    return step * sum(steps) / len(steps) if step and steps else None


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


def differences(claims: list[Claim], by_seed: Mapping[str, Sequence[Evaluation]]) -> list[Record]:
    """What a record keeps of claims: row minus rival by cell, seed by seed and task by task.

    Args:
        claims: of the experiment; those on rows that are not there are left out.
        by_seed: evaluations by row, one for each seed.
    """
    found: dict[tuple[str, str, str], Record] = {}
    for claim in claims:
        if claim.row not in by_seed or claim.rival not in by_seed:
            continue
        firsts, seconds = by_seed[claim.row], by_seed[claim.rival]
        cells = {}
        for name, cell in firsts[0].cells.items():
            other = seconds[0].cells.get(name)
            if (
                other is None
                or other.tasks_hash != cell.tasks_hash
                or claim.head not in cell.scores
            ):
                continue
            gap = paired_difference(
                [each.cells[name].scores[claim.head] for each in firsts],
                [each.cells[name].scores[ENSEMBLE] for each in seconds],
            )
            cells[name] = {
                "mean": float(f"{gap.mean:.4g}"),
                "interval": float(f"{gap.interval:.4g}"),
            }
        found[claim.row, claim.head, claim.rival] = {
            "row": claim.row, "head": claim.head, "rival": claim.rival, "cells": cells
        }  # fmt: skip
    return [*found.values()]
