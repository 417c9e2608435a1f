"""Runs as jobs of a scheduler, for which submitit's own on this machine stands in."""

import builtins
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit
import yaml
from submitit.core.utils import UncompletedJobError
from submitit.local.local import LocalJobEnvironment

from omnitraining.cli import main
from omnitraining.config.recipes import merge
from omnitraining.errors import InputError
from omnitraining.experiments import cluster
from omnitraining.experiments.jobs import Job, train_only
from omnitraining.runs.run import load_checkpoint
from tests.reference.tiny import SINUSOIDS, same, tensors


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    path = tmp_path / "waves.yaml"
    path.write_text(yaml.safe_dump(SINUSOIDS))
    return path


def omni(*arguments: object) -> int:
    return main([*map(str, arguments)])


def test_a_sweep_of_jobs_is_a_sweep_of_processes(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time, of which one fails; then nothing is left to submit but that one."""
    monkeypatch.setattr(cluster, "POLL", 0.1)
    grid = ["sweep", waves, "--training.lr", "0.01,1e30"]
    assert omni(*grid, "--jobs", 2, "--out", tmp_path / "here") == 1
    local = [
        *grid,
        "--launcher",
        "local",
        "--request",
        "timeout_min=9",
        "--out",
        tmp_path / "there",
    ]
    assert omni(*local) == 1
    here, there = (
        json.loads((tmp_path / name / f"{name}.json").read_text()) for name in ("here", "there")
    )
    assert here["failed"] == there["failed"] and [*there["failed"]] == ["lr=1e30-0"]
    cells = [record["rows"]["lr=0.01"]["cells"] for record in (here, there)]
    assert cells[0] == cells[1]
    submitted = [*(tmp_path / "there" / "submitit").glob("*_submitted.pkl")]
    assert len(submitted) == 2
    monkeypatch.setattr(cluster, "_outcome", lambda handle: "its job died")
    assert omni(*local) == 1
    assert len([*(tmp_path / "there" / "submitit").glob("*_submitted.pkl")]) == 3
    record = json.loads((tmp_path / "there" / "there.json").read_text())
    assert record["failed"] == {"lr=1e30-0": "its job died"}


def test_a_search_submits_its_trials(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[tuple[Any, ...]] = []

    def on_cluster(jobs: list[Job], work: Any, **others: Any) -> Any:
        handed.append((len(jobs), work, others["name"], others["processes"], others["request"]))
        for job in jobs:
            work(job)
            yield job, None

    monkeypatch.setattr(cluster, "on_cluster", on_cluster)
    words = ["tune", waves, "--loss.distill_weight", "0,1", "--trials", 3, "--jobs", 2]
    asked = ["--launcher", "local", "--request", "mem_gb=4", "slurm_partition=gpu"]
    assert omni(*words, *asked, "--out", tmp_path / "tuned") == 0
    request = {"timeout_min": 240, "name": "omni", "mem_gb": 4, "slurm_partition": "gpu"}
    assert handed == [(n, train_only, "local", 2, request) for n in (2, 1)]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the job in /proc")
def test_a_run_that_reaches_its_time_limit_goes_on(tmp_path: Path) -> None:
    """As one that is preempted: the scheduler warns it, and starts it again."""
    longer = merge(SINUSOIDS, {"training": {"steps": 300, "val_every": 50}})
    whole = Job("", "", tmp_path / "whole", longer)
    train_only(whole)
    job = Job("", "", tmp_path / "warned", longer)
    executor = submitit.AutoExecutor(tmp_path / "submitit", cluster="local")
    executor.update_parameters(timeout_min=9)
    handle = executor.submit(cluster._Task(train_only), job)
    checkpoint = job.folder / "last.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert load_checkpoint(checkpoint, {})["step"] < 300
    controller = handle.job_id
    (task,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(task), LocalJobEnvironment._usr_sig())
    assert handle.result() is None
    assert "Requeued job" in handle.stdout()
    ends = [tensors(path.folder / "last.safetensors") for path in (whole, job)]
    assert same(*ends)


def test_a_job_that_dies_leaves_a_line() -> None:
    class Handle:
        job_id, paths = "7", SimpleNamespace(stderr="out/submitit/7_0_log.err")

        def result(self) -> None:
            raise UncompletedJobError("in many lines")

    line = "its job 7 ended without an outcome: see out/submitit/7_0_log.err"
    assert cluster._outcome(Handle()) == line


def test_what_runs_is_cancelled_when_the_sweep_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = []
    monkeypatch.setattr(cluster, "POLL", 0.01)

    class Handle:
        def __init__(self, number: int) -> None:
            self.number = number

        def done(self) -> bool:
            return self.number == 0

        def result(self) -> None:
            return None

        def cancel(self) -> None:
            cancelled.append(self.number)

    class Executor:
        submitted = 0

        def batch(self) -> Any:
            from contextlib import nullcontext

            return nullcontext()

        def submit(self, *_: Any) -> Handle:
            self.submitted += 1
            return Handle(self.submitted - 1)

    monkeypatch.setattr(cluster, "_executor", lambda *_: Executor())
    jobs = [Job("", "", tmp_path / str(n), {}) for n in range(4)]
    ended = cluster.on_cluster(jobs, train_only, "slurm", 3, tmp_path, {})
    assert next(ended) == (jobs[0], None)
    ended.close()  # type: ignore[attr-defined]
    assert cancelled == [1, 2]  # the fourth was never submitted


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--launcher", "slurm"], '--launcher slurm is not possible: Could not detect "srun"'),
        (["--launcher", "local", "--request", "a=3"], "Parameter 'a' need to be prefixed"),
        (["--launcher", "local", "--request", "mem_gb"], "it must be NAME=VALUE, as timeout_min"),
        (["--request", "mem_gb=3"], "--request is for a scheduler: add --launcher slurm"),
        (["--launcher", "pbs"], "argument --launcher: invalid choice: 'pbs'"),
    ],
)
@pytest.mark.parametrize("command", ["sweep", "tune"])
def test_what_a_scheduler_cannot_do_is_one_line(
    command: str,
    arguments: list[str],
    line: str,
    waves: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # where there is no srun
    out = waves.parent / "out"
    assert omni(command, waves, "--loss.distill_weight", "0,1", *arguments, "--out", out) == 2
    printed = capsys.readouterr().err
    assert line in printed and printed.count("\n") == 1 and not out.exists()


def test_without_submitit_there_is_a_hint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = builtins.__import__

    def without(name: str, *others: Any) -> Any:
        if name == "submitit":
            raise ImportError(name)
        return original(name, *others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"needs submitit: pip install 'omnitraining\[cluster\]'"):
        cluster.launcher("slurm", None, tmp_path, [])
