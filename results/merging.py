"""Merging records of one experiment whose rows were measured in several places."""

import re
from dataclasses import replace
from typing import Any

from omnitraining.config.run_config import parse
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, CellKey
from omnitraining.experiments.record import Comparison, Record, Row, TrainingFacts
from omnitraining.experiments.recording import column_of


def merged(before: Record, after: Record) -> Record:
    """Merge two records; where both have a cell of a row, the later one's is taken.

    Seeds of a row that only the earlier one has are kept, if both were trained alike.
    Differences task by task need the scores of single tasks, which older records lack: for them,
    differences are kept where both rows are of one record, and dropped otherwise.

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
    measured = {**before.rows, **after.rows}
    rows = {
        name: _joined(before.rows.get(name, Row()), after.rows.get(name, Row()))
        for name in sorted(measured, key=lambda name: name != before.reference)  # it stands first
    }
    newer = {(name, key) for name, row in after.rows.items() for key in row.cells}
    reference = before.reference
    for name, row in rows.items():
        for key, column in row.cells.items():
            first = rows[reference].cells.get(key)
            parted = ((name, key) in newer) != ((reference, key) in newer)
            alike = first is not None and first.tasks == column.tasks
            if first is not None and alike and first.scores and column.scores:
                row.cells[key] = column.compared(first.scores[ENSEMBLE])
            elif parted or ((name, key) in newer and after.reference != reference):
                row.cells[key] = replace(column, reference_minus_this=None)
    claims = {claim.rows_and_head: claim for claim in after.claims}
    for claim in before.claims:
        kept = {
            key: gap
            for key, gap in claim.cells.items()
            if not {(claim.row, key), (claim.rival, key)} & newer
        }
        later = claims[claim.rows_and_head].cells if claim.rows_and_head in claims else {}
        claims[claim.rows_and_head] = Comparison(*claim.rows_and_head, kept | later)
    trainings = rows[reference].trainings.values()
    seeds = max(len(facts.seconds) for facts in trainings)
    numbers = " ".join(str(n) for n in sorted({n for facts in trainings for n in facts.seeds}))
    command = re.sub(r"--seeds( \d+)+", f"--seeds {numbers}", before.command)
    return replace(
        before,
        command=command if numbers else before.command,
        rows=rows,
        claims=[claim for claim in claims.values() if claim.cells],
        seeds=seeds,
        intervals="over tasks and seeds" if seeds > 1 else "over tasks",
    )


def _joined(old: Row, new: Row) -> Row:
    """A row with the cells of both, and how the runs of each setting were trained.

    Seeds that the later row lacks are kept if both have all scores and were trained alike.
    """
    kept = _other_seeds(old, new)
    if kept:
        return _pooled(old, new, kept)
    replaced = bool(old.cells) and old.cells.keys() <= new.cells.keys()
    return Row(
        {**old.cells, **new.cells},
        new.trainings if replaced else {**old.trainings, **new.trainings},
        new.paper or old.paper,
        new.seconds_per_step or old.seconds_per_step,
        new.varied or old.varied,
        new.of_seeds or old.of_seeds,
    )


def _other_seeds(old: Row, new: Row) -> list[int]:
    """Seeds of the earlier row that can be joined with the seeds of the later one."""
    if old.cells.keys() != new.cells.keys() or old.trainings.keys() != new.trainings.keys():
        return []
    columns = zip(old.cells.values(), (new.cells[key] for key in old.cells), strict=True)
    if not all(a.tasks == b.tasks and a.scores.keys() == b.scores.keys() for a, b in columns):
        return []
    if not all(column.scores for column in old.cells.values()):
        return []
    both = [(old.trainings[setting], new.trainings[setting]) for setting in old.trainings]
    if not all(a.seeds and b.seeds and _without_seed(a) == _without_seed(b) for a, b in both):
        return []
    first, second = both[0]
    if any((a.seeds, b.seeds) != (first.seeds, second.seeds) for a, b in both):
        return []
    return [seed for seed in first.seeds if seed not in second.seeds]


def dropped_seeds(before: Record, after: Record) -> list[str]:
    """A line for each row whose earlier seeds were replaced, since it was trained otherwise.

    Args:
        before: the earlier record.
        after: the merged one.
    """
    lines = []
    for name, row in before.rows.items():
        for setting, old in row.trainings.items():
            new = after.rows[name].trainings.get(setting, TrainingFacts())
            if not {*old.seeds} <= {*new.seeds}:
                first, second = map(_without_seed, (old, new))
                other = sorted(field for field in first if first[field] != second.get(field))
                why = f"other {', '.join(other)}" if other else "other cells, heads or settings"
                lines.append(f"{name}, {setting}: seeds {old.seeds} are replaced: {why}")
    return lines


def _without_seed(facts: TrainingFacts) -> dict[str, Any]:
    """Fields of a configuration without what differs between the seeds of one row.

    Options that are newer than the record have their defaults.
    """
    config = dict(parse({**facts.config, "seed": 0}).items())
    for name in ("teacher_run", "start_from"):
        config[name] = re.sub(r"-\d+$", "", str(config[name] or ""))
    return config


def _pooled(old: Row, new: Row, kept: list[int]) -> Row:
    """The later row with some seeds of the earlier one, in the order of the seeds."""
    facts = next(iter(old.trainings.values()))
    later = next(iter(new.trainings.values())).seeds
    places = [(seed, old, facts.seeds.index(seed)) for seed in kept]
    places += [(seed, new, place) for place, seed in enumerate(later)]
    places.sort(key=lambda place: place[0])
    cells = {}
    for key, column in new.cells.items():
        scores = {
            head: [row.cells[key].scores[head][place] for _, row, place in places]
            for head in column.scores
        }
        cells[key] = column_of(column.tasks, scores)
    trainings = {}
    for setting, own in new.trainings.items():
        lists = {
            name: [getattr(row.trainings[setting], name)[place] for _, row, place in places]
            for name in ("seeds", "seconds", "steps", "peak_mib", "best_step", "validation")
        }
        trainings[setting] = replace(own, **lists)
    timed = new.seconds_per_step or old.seconds_per_step
    return replace(new, cells=cells, trainings=trainings, seconds_per_step=timed)


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
    """The hashes of the tasks of each cell, over all rows."""
    found: dict[CellKey, set[str]] = {}
    for row in record.rows.values():
        for key, column in row.cells.items():
            found.setdefault(key, set()).add(column.tasks)
    return found
