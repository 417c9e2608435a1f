"""Runs on a cluster: Slurm queues and starts them, by submitit, in place of processes here.

A run that is preempted, or that reaches its time limit, is queued again and goes on from its last
checkpoint. submitit passes jobs and their outcomes in pickles, below the folder of the runs; the
runs themselves contain no pickles.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from omnitraining.errors import InputError
from omnitraining.experiments.jobs import Job, Launch, Work, attempted, in_processes

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

MINUTES = 240
"""Time limit of a run where none is requested; it is queued again three times."""

POLL = 1.0
"""Seconds between checks for jobs that have ended."""


def launcher(name: str, processes: int | None, folder: Path, request: Sequence[str]) -> Launch:
    """How runs are done.

    Args:
        name: ``"processes"`` of this machine; ``"slurm"``; or ``"local"``, submitit's stand-in for
            a cluster on this machine.
        processes: runs at a time; on a cluster all if not given.
        folder: for what the scheduler needs and the runs print.
        request: resources of each run, as ``timeout_min=60``, by submitit's names.

    Raises:
        InputError: submitit or the scheduler is not there, or refuses the request.
    """
    if name == "processes":
        if request:
            raise InputError("--request is for a scheduler: add --launcher slurm")
        return partial(in_processes, processes=processes or 1)
    values: dict[str, Any] = {"timeout_min": MINUTES, "name": "omni"}
    for text in request:
        field, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--request has {text!r}: it must be NAME=VALUE, as timeout_min=60")
        values[field] = yaml.safe_load(value)
    with TemporaryDirectory() as elsewhere:  # so that what is refused leaves no trace
        _executor(name, Path(elsewhere), values)
    return partial(on_cluster, name=name, processes=processes, folder=folder, request=values)


def on_cluster(
    jobs: Sequence[Job],
    work: Work,
    name: str,
    processes: int | None,
    folder: Path,
    request: dict[str, Any],
) -> Iterator[tuple[Job, str | None]]:
    """Do the same work on all jobs, each as a job of a scheduler; as `jobs.in_processes`.

    Running jobs are cancelled when the caller stops. Arguments as in `launcher`.
    """
    executor = _executor(name, folder, request)
    waiting, running = deque(jobs), dict[Any, Job]()
    try:
        while waiting or running:
            room = min(len(waiting), (processes or len(jobs)) - len(running))
            if room:
                started = [waiting.popleft() for _ in range(room)]
                with executor.batch():  # one array for Slurm
                    submitted = [executor.submit(_Task(work), job) for job in started]
                running.update(zip(submitted, started, strict=True))
            time.sleep(POLL)
            for handle in [handle for handle in running if handle.done()]:
                yield running.pop(handle), _outcome(handle)
    finally:
        for handle in running:
            handle.cancel()


@dataclass(frozen=True)
class _Task:
    """The function that the scheduler runs."""

    work: Work

    def __call__(self, job: Job) -> str | None:
        return attempted(self.work, job)

    def checkpoint(self, job: Job) -> "DelayedSubmission":
        """Called before the scheduler ends it: the same again, which resumes the run."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job)


def _outcome(handle: Any) -> str | None:
    """None, or the reason of a failed job in one line."""
    from submitit.core.utils import UncompletedJobError

    try:
        reason: str | None = handle.result()
    except UncompletedJobError:
        return f"its job {handle.job_id} ended without an outcome: see {handle.paths.stderr}"
    return reason


def _executor(name: str, folder: Path, request: dict[str, Any]) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise InputError(
            f"--launcher {name} needs submitit: pip install 'omnitraining[cluster]'"
        ) from error
    try:
        executor = submitit.AutoExecutor(folder / "submitit", cluster=name)
        executor.update_parameters(**request)
    except (NameError, AssertionError, TypeError, ValueError, RuntimeError) as error:
        words = " ".join(str(error).split())
        raise InputError(f"--launcher {name} is not possible: {words}") from error
    return executor
