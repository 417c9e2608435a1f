"""Sweeps: a configuration trained with every combination of some values, for every seed."""

from collections.abc import Sequence
from pathlib import Path

from omnitraining.errors import InputError
from omnitraining.experiments.display import show
from omnitraining.experiments.grid import Combination
from omnitraining.experiments.jobs import Job, Launch, check_unchanged, train_and_evaluate
from omnitraining.experiments.record import Row, Values, write_record
from omnitraining.experiments.recording import Results, Selection, make_record
from omnitraining.experiments.tables import sweep_table
from omnitraining.io.files import locked
from omnitraining.io.terminal import say
from omnitraining.runs.run import Run

Failures = dict[str, str]
"""Why a run failed, by its name."""


def sweep(
    combinations: list[Combination],
    seeds: Sequence[int],
    folder: Path,
    launch: Launch,
    facts: Values,
    trust: bool = False,
) -> Failures:
    """Train and evaluate every combination for every seed; finished runs are kept, others resumed.

    The record has what is finished, also when the sweep is interrupted: each row is the mean of the
    finished seeds, which it names. A run that fails does not stop the others.

    Args:
        combinations: of values.
        seeds: of every combination.
        folder: of the runs, the record and the figure, which are called like it.
        launch: how runs are executed, from `cluster.launcher`.
        facts: header of the record: experiment, title, paper, command.
        trust: whether runs that the configuration names, as ``start_from``, may use classes from
            outside this library.

    Returns:
        Why runs failed, by their names.

    Raises:
        InputError: a run in the folder has another configuration.
    """
    jobs = [
        Job(
            combination.label,
            "",
            folder / f"{combination.folder}-{seed}",
            {**combination.values, "seed": seed},
            trust=trust,
        )
        for seed in seeds
        for combination in combinations
    ]
    for job in jobs:
        check_unchanged(job)
    waiting = [job for job in jobs if not job.is_evaluated]
    say(f"{len(jobs)} runs, of which {len(jobs) - len(waiting)} are finished")
    failures: Failures = {}
    try:
        for done, (job, reason) in enumerate(launch(waiting, train_and_evaluate), 1):
            say(f"{done}/{len(waiting)} {job.title}: {reason or 'finished'}")
            if reason:
                failures[job.title] = reason
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):  # another sweep, of other seeds, may have the same record
            conclude(combinations, jobs, folder, {**facts, "failed": failures})
    return failures


def conclude(combinations: list[Combination], jobs: list[Job], folder: Path, facts: Values) -> None:
    """Write the record of what is finished, show it, and draw it where numbers were varied."""
    finished = {
        combination.label: [
            job for job in jobs if job.row == combination.label and job.is_evaluated
        ]
        for combination in combinations
    }
    results: Results = {
        label: {"": [Run(job.folder) for job in own]} for label, own in finished.items() if own
    }
    if not results:
        return
    beside = {
        combination.label: Row(
            varied=combination.varied,
            of_seeds=[job.values["seed"] for job in finished[combination.label]],
        )
        for combination in combinations
    }
    path = folder / f"{folder.absolute().name}.json"
    record = make_record(facts, results, Selection(), beside, [])
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
