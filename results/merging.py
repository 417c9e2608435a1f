"""Merging records of one experiment whose rows were measured in several places."""

from dataclasses import replace

from omnitraining.errors import InputError
from omnitraining.evaluation import CellKey
from omnitraining.experiments.record import Comparison, Record, Row


def merged(before: Record, after: Record) -> Record:
    """One record of two; where both have a cell of a row, the later one's counts.

    Differences task by task are kept where both rows are of one record, and dropped where they are
    not: the scores of single tasks are with the runs.

    Args:
        before: the earlier record.
        after: the later one, of other rows, settings or seeds.

    Raises:
        InputError: they are of different experiments, or were evaluated on different tasks.
    """
    for name in ("experiment", "unit", "higher_is_better"):
        if getattr(before, name) != getattr(after, name):
            raise InputError(
                f"records of {before.experiment!r} and {after.experiment!r} cannot be merged: they "
                f"differ in {name}"
            )
    _check_tasks(before, after)
    rows = {
        name: _joined(before.rows.get(name, Row()), after.rows.get(name, Row()))
        for name in {**before.rows, **after.rows}
    }
    newer = {(name, key) for name, row in after.rows.items() for key in row.cells}
    reference = before.reference
    for name, row in rows.items():
        for key, column in row.cells.items():
            parted = ((name, key) in newer) != ((reference, key) in newer)
            if parted or ((name, key) in newer and after.reference != reference):
                row.cells[key] = replace(column, reference_minus_this=None)
    claims = {claim.about: claim for claim in after.claims}
    for claim in before.claims:
        kept = {
            key: gap
            for key, gap in claim.cells.items()
            if not {(claim.row, key), (claim.rival, key)} & newer
        }
        later = claims[claim.about].cells if claim.about in claims else {}
        claims[claim.about] = Comparison(*claim.about, kept | later)
    return replace(before, rows=rows, claims=[claim for claim in claims.values() if claim.cells])


def _joined(old: Row, new: Row) -> Row:
    """A row with the cells of both, and how the runs of each setting were trained."""
    replaced = bool(old.cells) and old.cells.keys() <= new.cells.keys()
    return Row(
        {**old.cells, **new.cells},
        new.trainings if replaced else {**old.trainings, **new.trainings},
        new.paper or old.paper,
        new.seconds_per_step or old.seconds_per_step,
        new.varied or old.varied,
        new.of_seeds or old.of_seeds,
    )


def _check_tasks(before: Record, after: Record) -> None:
    """Refuse other tasks of a cell; rows of one record may differ in them, as in simulators."""
    earlier, later = _tasks(before), _tasks(after)
    for name, row in after.rows.items():
        for key, column in row.cells.items():
            found = earlier.get(key, set())
            if found and column.tasks not in found and not found <= later[key]:
                raise InputError(
                    f"records cannot be merged: {name} was evaluated on other tasks of '{key}' "
                    "than the rows before it"
                )


def _tasks(record: Record) -> dict[CellKey, set[str]]:
    """What the tasks of each cell are, in any row."""
    found: dict[CellKey, set[str]] = {}
    for row in record.rows.values():
        for key, column in row.cells.items():
            found.setdefault(key, set()).add(column.tasks)
    return found
