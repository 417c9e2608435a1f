"""Training in a process that is killed, at a random time or while it writes a file."""

import csv
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file

from omnitraining.config.run_config import parse
from omnitraining.experiments.running import evaluate_run, train_run
from omnitraining.runs import run as runs
from omnitraining.runs.run import Run, load_checkpoint

Manner = Literal["at a random time", "while a checkpoint is written", "before a file is renamed"]
MANNERS: tuple[Manner, ...] = get_args(Manner)

_server = multiprocessing.get_context("forkserver")  # starts quickly, with torch imported once
_server.set_forkserver_preload(
    ["benchmarks.faults.kills", "tests.reference.tiny", "torch.utils.tensorboard"]
)


def killed(
    values: dict[str, Any], folder: Path, manner: Manner | None = None, at: float = 0
) -> bool:
    """Train, or go on training, in another process; returns whether it was killed before its end.

    Args:
        values: the configuration.
        folder: of the run.
        manner: of the kill; None lets it end.
        at: seconds after the start; or the number of the file, from 0, that is being written.
    """
    process = _server.Process(target=_train_and_kill, args=(values, folder, manner, at))
    process.start()
    if manner == "at a random time":
        process.join(at)
        process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"training in {folder} ended with code {process.exitcode}")
    return process.exitcode != 0


def _train_and_kill(values: dict[str, Any], folder: Path, manner: Manner | None, at: float) -> None:
    torch.set_num_threads(1)
    left = int(at)

    def last_one() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    if manner == "before a file is renamed":
        replace = os.replace

        def replaced(part: Any, path: Any) -> None:
            if last_one():
                os.kill(os.getpid(), signal.SIGKILL)
            replace(part, path)

        runs.os.replace = replaced
    if manner == "while a checkpoint is written":
        save_file = runs.save_file

        def saved(tensors: Any, path: Path, metadata: Any) -> None:
            save_file(tensors, path, metadata)
            if last_one():
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        runs.save_file = saved
    train_run(parse(values), folder, resume=folder.is_dir())


def seconds_of(values: dict[str, Any], folder: Path) -> float:
    """Seconds that an undisturbed run takes."""
    start = time.monotonic()
    killed(values, folder)
    return time.monotonic() - start


def differences(first: Path, second: Path, tasks: int = 20) -> list[str]:
    """Names of the differences between two runs; none if they are equal.

    Compared are the weights, the teacher, the state of the optimizer and the facts of both
    checkpoints, all rows of metrics.csv, the configuration, and the results on test tasks.

    Args:
        first: folder of a run.
        second: folder of another run.
        tasks: number of test tasks.
    """
    torch.set_num_threads(1)
    differing = []
    for which in ("last", "best"):
        one, other = (load_file(folder / f"{which}.safetensors") for folder in (first, second))
        names = one.keys() | other.keys()
        both = one.keys() & other.keys()
        differing += [f"{which}: {n}" for n in names if n not in both or not same(one[n], other[n])]
        facts = [load_checkpoint(f / f"{which}.safetensors", {}) for f in (first, second)]
        differing += [
            f"{which}: {n}"
            for n in facts[0]
            if not n.startswith("seconds") and facts[0][n] != facts[1][n]
        ]
    texts = [(folder / "config.yaml").read_text() for folder in (first, second)]
    rows = [[*csv.reader((f / "metrics.csv").read_text().splitlines())] for f in (first, second)]
    results = [evaluation_of(folder, tasks) for folder in (first, second)]
    for name, (one_, other_) in {"config": texts, "metrics": rows, "evaluation": results}.items():
        differing += [name] * (one_ != other_)
    return differing


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal in type and in every bit."""
    return one.dtype == other.dtype and torch.equal(one, other)


def evaluation_of(folder: Path, tasks: int) -> Any:
    """The evaluation of a run as JSON."""
    evaluate_run(Run(folder, trust=True), tasks, name="faults")
    return json.loads((folder / "evaluations" / "faults.json").read_text())
