"""Claims: that one row of a table is better than another, and the verdict by the measurements."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, CellKey, Difference, Evaluation, paired_difference
from omnitraining.experiments.record import Comparison, Number, Record, Row, rounded

EQUAL = 1.1
"""Compute counts as equal up to this ratio, since training ends at whole epochs."""


@dataclass(frozen=True)
class Claim:
    """One row is better than another, or equivalent to it.

    Args:
        row: the row that is better.
        better_than: the row that it is better than.
        equivalent_to: instead, the row that it is neither better nor worse than.
        margin: with ``equivalent_to``, the largest difference that counts as none, in the unit of
            the record.
        head: of the first row: one of its flows, or the ensemble.
        cells: the cells it is about, as ``"cub"`` or ``"cub 5-way 1-shot"``; all if empty.
        source: the table or figure of the paper that makes it.

    Raises:
        InputError: there are both or none of ``better_than`` and ``equivalent_to``, or no margin
            with the latter.

    Example:
        >>> Claim("omni", better_than="protonet", cells=["cub"]).text
        'omni above protonet on cub'
    """

    row: str
    better_than: str = ""
    equivalent_to: str = ""
    margin: float = 0.0
    head: str = ENSEMBLE
    cells: Sequence[str] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if bool(self.better_than) == bool(self.equivalent_to):
            raise InputError(
                f"claim about {self.row!r}: give better_than or equivalent_to, one of the two"
            )
        if bool(self.equivalent_to) != (self.margin > 0):
            raise InputError(
                f"claim about {self.row!r}: give a margin above 0 with equivalent_to, and only "
                "with it"
            )
        object.__setattr__(self, "cells", tuple(self.cells))

    @property
    def rival(self) -> str:
        """The other row."""
        return self.better_than or self.equivalent_to

    @property
    def text(self) -> str:
        """In words."""
        flow = "" if self.head == ENSEMBLE else f", {self.head}-flow alone,"
        where = f" on {', '.join(self.cells)}" if self.cells else ""
        words = f"within {self.margin:g} of" if self.equivalent_to else "above"
        return f"{self.row}{flow} {words} {self.rival}{where}"

    def covers(self, key: CellKey) -> bool:
        """Whether it is about a cell."""
        return not self.cells or any(CellKey.parse(cell).covers(key) for cell in self.cells)


@dataclass(frozen=True)
class Verdict:
    """The result of the measurements on a claim.

    Attributes:
        word: a claim that a row is better holds if the interval of the difference excludes zero in
            its favor in more than half of the cells, and against it in none. A claim of equivalence
            holds if the whole interval is within the margin in more than half of the cells, and
            the whole interval beyond it in none. Where it would hold, but the row was trained for
            more than `EQUAL` times the multiply-adds of its rival, or they were not counted, it is
            "not at equal compute".
        better: cells whose interval excludes zero, in favor; of an equivalence, cells within the
            margin.
        worse: cells whose interval excludes zero, against; of an equivalence, cells beyond the
            margin.
        cells: all that were measured.
        is_paired: whether intervals are of differences task by task. If not, both rows count as
            independent, and since their tasks are the same, the interval is mostly too wide.
        compute: multiply-adds of the row's training over the rival's, the largest ratio of all
            settings; None where they were not counted.
    """

    word: Literal["holds", "does not", "not at equal compute", "not measured here"]
    better: int
    worse: int
    cells: int
    is_paired: bool
    compute: float | None = None


def verdict(claim: Claim, records: Sequence[Record]) -> Verdict:
    """The verdict on a claim by all cells of some records.

    Args:
        claim: of the experiment.
        records: of the experiment; none if it was not run.
    """
    measured = [(record, *gaps(claim, record)) for record in records]
    used = [(record, own, is_paired) for record, own, is_paired in measured if own]
    differences = [gap for _, own, _ in used for gap in own.values()]
    if not differences:
        return Verdict("not measured here", 0, 0, 0, False)
    if claim.equivalent_to:
        better = sum(abs(gap.mean) + gap.interval <= claim.margin for gap in differences)
        worse = sum(abs(gap.mean) - gap.interval > claim.margin for gap in differences)
    else:
        better, worse = better_and_worse(differences)
    ratios = [
        compute_ratio(record.rows[claim.row], record.rows[claim.rival]) for record, _, _ in used
    ]
    compute = None if None in ratios else max(ratio for ratio in ratios if ratio is not None)
    word: Literal["holds", "does not", "not at equal compute"] = "does not"
    if worse == 0 and better > len(differences) / 2:
        word = "holds" if compute is not None and compute <= EQUAL else "not at equal compute"
    is_paired = all(is_paired for _, _, is_paired in used)
    return Verdict(word, better, worse, len(differences), is_paired, compute)


def better_and_worse(gaps: Sequence[Difference]) -> tuple[int, int]:
    """How many differences exclude zero, above it and below it."""
    better = sum(gap.mean > gap.interval for gap in gaps)
    worse = sum(-gap.mean > gap.interval for gap in gaps)
    return better, worse


def shortfall(ours: tuple[float, float], published: Number) -> float:
    """By how much a rival of ours falls short of its published number; 0 if it is reached.

    It is reached if our mean plus its interval is not below the published mean minus its own.

    Args:
        ours: mean and half-width of its interval.
        published: the mean and half-width that its authors published; None counts as 0.
    """
    (mean, half), (published_mean, published_half) = ours, published
    return max(0.0, published_mean - (published_half or 0.0) - mean - half)


def compute_ratio(row: Row, rival: Row) -> float | None:
    """Multiply-adds of a row's training over its rival's, the largest ratio of all settings.

    Returns:
        The ratio, or None where they were not counted or the two have no setting in common.
    """
    ratios = []
    for setting, own in row.trainings.items():
        if setting in rival.trainings:
            one, other = own.multiply_adds, rival.trainings[setting].multiply_adds
            if one is None or other is None:
                return None
            ratios.append(one / other)
    return max(ratios, default=None)


def gaps(claim: Claim, record: Record) -> tuple[dict[CellKey, Difference], bool]:
    """Differences that a record has on a claim, in the row's favor, and whether they are paired.

    They are paired task by task where the record was written with the claim, or where one of the
    rows is the reference.
    """
    if claim.row not in record.rows or claim.rival not in record.rows:
        return {}, False
    paired = _paired(claim, record)
    first, second = record.rows[claim.row].cells, record.rows[claim.rival].cells
    differences: dict[CellKey, Difference] = {}
    for key, column in first.items():
        other = second.get(key)
        if not claim.covers(key) or other is None or other.tasks != column.tasks:
            continue
        if key in paired:
            differences[key] = paired[key]
        elif claim.head in column.heads:
            one, two = column.heads[claim.head], other.ensemble
            width = math.hypot(one.interval, two.interval)
            differences[key] = Difference(record.sign * (one.mean - two.mean), width)
    return differences, differences.keys() <= paired.keys()


def _paired(claim: Claim, record: Record) -> dict[CellKey, Difference]:
    """Differences task by task that a record has on the two rows, in favor of the first."""
    paired: dict[CellKey, Difference] = {}
    first, second = record.rows[claim.row], record.rows[claim.rival]
    for key, column in first.cells.items():
        other = second.cells.get(key)
        if other is None or other.tasks != column.tasks or not other.scores:
            continue
        if claim.head in column.scores:
            found = paired_difference(column.scores[claim.head], other.scores[ENSEMBLE])
            paired[key] = Difference(record.sign * rounded(found.mean), rounded(found.interval))
    for known in record.claims:
        if known.rows_and_head == (claim.row, claim.head, claim.rival):
            for key, gap in known.cells.items():
                paired.setdefault(key, Difference(record.sign * gap.mean, gap.interval))
    if claim.head == ENSEMBLE and record.reference in (claim.row, claim.rival):
        is_first = record.reference == claim.row
        sign = record.sign if is_first else -record.sign
        beside = record.rows[claim.rival if is_first else claim.row]
        for key, column in beside.cells.items():
            if lead := column.reference_minus_this:
                paired.setdefault(key, Difference(sign * lead.mean, lead.interval))
    return paired


def comparisons(
    claims: Sequence[Claim], by_seed: Mapping[str, Sequence[Evaluation]]
) -> list[Comparison]:
    """The differences that a record keeps for claims: row minus rival, by cell, seed and task.

    Args:
        claims: of the experiment; claims about missing rows are left out.
        by_seed: evaluations by row, one for each seed.
    """
    kept: dict[tuple[str, str, str], Comparison] = {}
    for claim in claims:
        if claim.row not in by_seed or claim.rival not in by_seed:
            continue
        firsts, seconds = by_seed[claim.row], by_seed[claim.rival]
        cells = {}
        for key, cell in firsts[0].cells.items():
            other = seconds[0].cells.get(key)
            if other is None or other.tasks_hash != cell.tasks_hash:
                continue
            if claim.head not in cell.scores:
                continue
            gap = paired_difference(
                [each.cells[key].scores[claim.head] for each in firsts],
                [each.cells[key].scores[ENSEMBLE] for each in seconds],
            )
            cells[key] = Difference(rounded(gap.mean), rounded(gap.interval))
        comparison = Comparison(claim.row, claim.head, claim.rival, cells)
        kept[comparison.rows_and_head] = comparison
    return [*kept.values()]
