"""Sweeps: a configuration trained with every combination of some values, for every seed."""

from collections.abc import Sequence
from pathlib import Path

from omnitraining.errors import InputError
from omnitraining.experiments.display import show, sweep_table
from omnitraining.experiments.jobs import Job, Launch, check_unchanged, train_and_judge
from omnitraining.experiments.records import Results, Shown, Values, make_record, write_record
from omnitraining.experiments.variation import Cell
from omnitraining.io.files import locked
from omnitraining.io.terminal import say
from omnitraining.runs.run import Run

Failures = dict[str, str]
"""Why a run failed, by its name."""


def sweep(
    cells: list[Cell],
    seeds: Sequence[int],
    folder: Path,
    launch: Launch,
    facts: Values,
    trust: bool = False,
) -> Failures:
    """Train and judge every cell for every seed; what is there is kept, and broken runs resumed.

    The record has what is finished, also when the sweep is interrupted: a cell is the mean of those
    seeds that are finished, and says which. A run that fails leaves the others alone.

    Args:
        cells: combinations of values.
        seeds: of every cell.
        folder: of the runs, the record and the figure, which are called like it.
        launch: how runs are done, as `cluster.launcher` says.
        facts: what the record says first: experiment, title, paper, command.
        trust: whether runs that the configuration names, as ``start``, may run classes from outside
            this library.

    Returns:
        Why runs failed, by their names.

    Raises:
        InputError: a run in the folder has another configuration.
    """
    jobs = [
        Job(cell.label, "", folder / f"{cell.folder}-{seed}", {**cell.values, "seed": seed},
            trust=trust)
        for seed in seeds
        for cell in cells
    ]  # fmt: skip
    for job in jobs:
        check_unchanged(job)
    waiting = [job for job in jobs if not job.is_judged]
    say(f"{len(jobs)} runs, of which {len(jobs) - len(waiting)} are finished")
    failures: Failures = {}
    try:
        for done, (job, reason) in enumerate(launch(waiting, train_and_judge), 1):
            say(f"{done}/{len(waiting)} {job.title}: {reason or 'finished'}")
            if reason:
                failures[job.title] = reason
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):  # another sweep, of other seeds, may have the same record
            conclude(cells, jobs, folder, {**facts, "failed": failures})
    return failures


def conclude(cells: list[Cell], jobs: list[Job], folder: Path, facts: Values) -> None:
    """Write the record of what is finished, show it, and draw it where numbers were varied."""
    judged = {
        cell.label: [job for job in jobs if job.row == cell.label and job.is_judged]
        for cell in cells
    }
    results: Results = {
        label: {"": [Run(job.folder) for job in those]} for label, those in judged.items() if those
    }
    if not results:
        return
    beside = {
        cell.label: {
            "varied": cell.varied,
            "of_seeds": [job.values["seed"] for job in judged[cell.label]],
        }
        for cell in cells
    }
    path = folder / f"{folder.absolute().name}.json"
    record, _ = make_record(facts, results, Shown(), beside, [])
    show(sweep_table(record))
    write_record(path, record)
    say(f"record: {path}")
    from omnitraining.experiments.figures import (
        varied_fields,  # matplotlib takes a second to import
    )

    if varied_fields.can_draw(record):
        say(f"figure: {varied_fields.draw(record, None, path.with_suffix('.png'))}")


def read_seeds(text: str | None, default: int) -> list[int]:
    """Seeds from a text as "0,1,2".

    Raises:
        InputError: it is not a list of different integers.
    """
    if text is None:
        return [default]
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--seeds is {text}: it must be integers, as in 0,1,2") from None
    if len({*seeds}) < len(seeds):
        raise InputError(f"--seeds is {text}: a seed is given twice")
    return seeds
