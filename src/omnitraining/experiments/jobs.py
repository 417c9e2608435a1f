"""Jobs: runs to be trained and evaluated, in this process or in separate ones."""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from omnitraining.config.run_config import parse
from omnitraining.config.starts import library_of
from omnitraining.errors import InputError
from omnitraining.experiments.display import TrainingDisplay
from omnitraining.experiments.record import Values
from omnitraining.experiments.running import changed_fields, evaluate_run, train_run
from omnitraining.io.files import locked, sync
from omnitraining.runs.run import Run
from omnitraining.training import Progress, find_device


@dataclass(frozen=True)
class Job:
    """One run of several that belong together.

    Attributes:
        row: of the table that the runs make.
        setting: of the experiment; "" if it has none.
        folder: of the run.
        values: what to train, not yet checked.
        continues: run that is trained on to become this one, if any.
        trust: whether runs that it names, as ``start``, may run classes from outside this library.
    """

    row: str
    setting: str
    folder: Path
    values: Values
    continues: Path | None = None
    trust: bool = False

    @cached_property
    def config(self) -> Namespace:
        """The checked configuration."""
        return parse(self.values, str(self.folder))

    @property
    def title(self) -> str:
        """Setting and run, as in the progress."""
        return "/".join(filter(None, (self.setting, self.folder.name)))

    @property
    def is_trained(self) -> bool:
        """Whether training has ended."""
        return (self.folder / "provenance.json").is_file()

    @property
    def is_evaluated(self) -> bool:
        """Whether there are results on the test tasks."""
        return (self.folder / "evaluations" / "test.json").is_file()

    @property
    def is_fine_tuned(self) -> bool:
        """Whether there are results with fine-tuned backbones."""
        return (self.folder / "evaluations" / "tuned.json").is_file()


def check_unchanged(job: Job) -> None:
    """Refuse a folder that holds a run of another configuration.

    Raises:
        InputError: it does.
    """
    if not (job.folder / "config.yaml").is_file():
        return
    if changed := changed_fields(Run(job.folder), job.config):
        raise InputError(
            f"{job.folder} holds a run with another {', '.join(changed)}: choose another --out"
        )


def train(job: Job, progress: Progress) -> None:
    """Train a job, or resume its training, unless it is finished.

    Raises:
        InputError: something in the configuration does not fit, training diverges, or a run that
            it continues is not trained.
    """
    if job.is_trained:
        return
    for before in (job.continues, job.values.get("teacher_run"), job.values.get("start_from")):
        if before is None or library_of(before) is not None:
            continue
        if not (Path(before) / "provenance.json").is_file():
            raise InputError(
                f"{job.folder} goes on from {before}, which is not trained: train it first"
            )
    if job.continues is not None:
        _copy_checkpoints(job.continues, job.folder)
    resume = job.folder.exists()
    train_run(job.config, job.folder, resume=resume, progress=progress, trust=job.trust)


def evaluate(job: Job, tasks: int | None = None) -> None:
    """Evaluate a trained job on its test tasks, if that has not been done.

    Args:
        job: trained.
        tasks: test tasks per cell; all if not given.
    """
    if not job.is_evaluated:
        # Its classes may be from anywhere: the configuration was compared with the job's.
        evaluate_run(Run(job.folder, trust=True), tasks)


def fine_tune(job: Job, tasks: int) -> None:
    """Evaluate a trained job with its backbones fine-tuned, if that has not been done.

    Args:
        job: trained, on images.
        tasks: test tasks per cell.
    """
    from omnitraining.analysis import transfer  # few experiments need it

    if not job.is_fine_tuned:
        transfer.tune_run(Run(job.folder, trust=True), tasks)


def _copy_checkpoints(before: Path, folder: Path) -> None:
    """Start a run from where another one ended."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            return
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for name in ("last.safetensors", "best.safetensors", "metrics.csv"):
            shutil.copy(before / name, part / name)
            sync(part / name)
        part.rename(folder)


# --- processes ---

Work = Callable[[Job], None]
"""What is done with a job; a function of a module, for another process to find it."""

Launch = Callable[[Sequence[Job], Work], Iterator[tuple[Job, str | None]]]
"""Does the same work on jobs, wherever: each comes back as it ends, as from `in_processes`."""


def train_only(job: Job) -> None:
    """Train, with progress in plain lines."""
    train(job, TrainingDisplay(job.title))


def train_and_evaluate(job: Job) -> None:
    """Train and evaluate, with progress in plain lines."""
    train_only(job)
    evaluate(job)


def default_processes(device: str) -> int:
    """How many jobs to run at a time: one per core; one where they would share a GPU.

    Args:
        device: ``training.device`` of the jobs.
    """
    if find_device(device).type != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):  # cores that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_processes(
    jobs: Sequence[Job], work: Work, processes: int
) -> Iterator[tuple[Job, str | None]]:
    """Do the same work on all jobs, each in a separate process that uses one thread.

    A job that fails, or whose process dies, leaves the others alone. Processes end with the one
    that started them, however that ends.

    Args:
        jobs: independent of each other.
        work: what to do with each.
        processes: how many jobs run at a time.

    Yields:
        Each job as it ends, with None, or with the reason of its failure in one line.

    Raises:
        InputError: this is a process of such a job, which reads the script that started it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as Python finds out
        raise InputError(
            "each run is a process that reads this script first: put what starts runs below "
            "if __name__ == '__main__':"
        )
    # A clean server that has imported what jobs need makes processes in no time, and without the
    # threads of this one; what is not installed it leaves out. Windows has no fork.
    context: Any = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    context.set_forkserver_preload(["omnitraining.experiments.jobs", "torch.utils.tensorboard"])
    waiting = deque(jobs)
    running: dict[Any, tuple[BaseProcess, Connection, Job]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                job = waiting.popleft()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(work, job, sender), daemon=True)
                process.start()
                sender.close()
                running[process.sentinel] = process, receiver, job
            for sentinel in wait([*running]):
                process, receiver, job = running.pop(sentinel)
                process.join()
                yield job, _outcome(process.exitcode, receiver)
    finally:
        for process, _, _ in running.values():
            process.terminate()
            process.join()


def _work(work: Work, job: Job, sender: Connection) -> None:
    """Worker entry point."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    sender.send(attempted(work, job))


def attempted(work: Work, job: Job) -> str | None:
    """Do the work; returns None, or the reason of its failure in one line."""
    try:
        work(job)
    except InputError as error:
        return str(error)
    except Exception as error:  # of a user's backbone, for example: only this job fails
        first = (str(error).splitlines() or [""])[0]
        return f"{type(error).__name__}: {first}"
    return None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _outcome(code: int | None, receiver: Connection) -> str | None:
    try:
        reason: str | None = receiver.recv()
    except EOFError:
        return f"its process ended with code {code}; -9 is mostly for lack of memory"
    finally:
        receiver.close()
    return reason
