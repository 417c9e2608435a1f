"""Several processes train as one, on whatever starts them, and fail as one."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from omnitraining.batches import Episode, MiniBatch, StepData
from omnitraining.cli import main
from omnitraining.config.recipes import merge
from omnitraining.config.run_config import instantiate, parse
from omnitraining.distributed import DistributedContext, current_context, process_group
from omnitraining.errors import InputError
from omnitraining.experiments.running import train_run
from omnitraining.model import Model
from omnitraining.runs.run import Run, load_checkpoint
from omnitraining.tasks.base import Problem
from omnitraining.teacher import Teacher
from omnitraining.training import Training, check_distributed
from tests.reference.tiny import BLOBS, NAVIGATION, SINUSOIDS, Values, metrics, same, tensors

ROOT = Path(__file__).parents[1]
RATE = 0.05
BEFORE = 2
"""Steps of one process before two go on, so that the teacher is not the student any more."""
TOGETHER = 2
NO_LOGGERS: Values = {"loggers": []}
"""Each process that trains would import TensorBoard."""

EVEN = merge(BLOBS, {"problem": {"init_args": {"protocol": {"queries": 4}}}})
"""Two processes split four queries of each class."""
PLAIN: Values = {"backbone": {"class_path": "tests.reference.together.Plain", "init_args": {}}}
MAML: Values = {"metatraining": {"class_path": "MAML", "init_args": {"steps": 2, "lr": 0.1}}}
HARD: Values = {
    "metatraining": {
        "class_path": "HardTasks",
        "init_args": {"algorithm": {"class_path": "ANIL"}, "steps": 1, "hard_steps": 1},
    },
    "problem": {"init_args": {"noise": 200.0, "protocol": {"tasks": 6, "test_ways": 3}}},
}
"""The third step, of two processes, decides the tasks of the fourth, by the predictions of both."""
PROTOCOL: Values = {"problem": {"init_args": {"protocol": {"test_ways": 3}}}}
CASES: dict[str, Values] = {
    "protonet": EVEN,
    "protonet-plain": merge({**EVEN, "backbone": {}}, PLAIN),
    "maml": merge(EVEN, {**MAML, **PROTOCOL}),
    "maml-plain": merge({**EVEN, "backbone": {}}, {**MAML, **PROTOCOL, **PLAIN}),
    "hard-tasks-plain": merge({**EVEN, "backbone": {}}, {**HARD, **PLAIN}),
    "sinusoids": SINUSOIDS,
    "navigation": NAVIGATION,
    "two-flows": merge(SINUSOIDS, {"loss": {"l_meta": False}}),  # weights without gradients
}
WHOLE = ("protonet-plain", "maml-plain", "hard-tasks-plain", "sinusoids", "two-flows", "navigation")
"""Without batch norm: there the shards together equal the step of one process."""


def case(name: str, steps: int) -> Values:
    exact = {"steps": steps, "val_every": 9, "optimizer": "sgd", "lr": RATE, **NO_LOGGERS}
    judged = {"inference": {"weights": "student"}}
    return merge(
        CASES[name], {"training": exact, "loss": {"distill_weight": 1.0}, "seed": 3, **judged}
    )


def environment() -> dict[str, str]:
    """For processes that use the code under test, on one thread each."""
    paths = [str(ROOT / "src"), str(ROOT)]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHELASTIC", "SLURM"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def omni(*arguments: object, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "omnitraining", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), **more},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every case: NAME-first by one process, and NAME, which two have gone on with."""
    folder = tmp_path_factory.mktemp("together")
    for name in CASES:
        first = train_run(parse(case(name, BEFORE)), folder / f"{name}-first").path
        shutil.copytree(first, folder / name)
    jobs = {name: case(name, BEFORE + TOGETHER) for name in CASES}
    jobs["first-step"] = case("navigation", 1)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    subprocess.run(
        [sys.executable, "-m", "tests.reference.together", str(folder)],
        check=True,
        env=environment() | place,
        cwd=ROOT,
    )
    return folder


def shards(problem: Problem, model: Model, seed: int, step: int) -> list[StepData]:
    drawn = []
    for part in (0, 1):
        problem.shard(part, 2)
        drawn.append(problem.samples(step, chance(seed, step), model))
    return drawn


def chance(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def side_by_side(drawn: list[StepData]) -> StepData:
    """Shares of the tasks of reinforcement learning as one step."""

    def batch(parts: list[MiniBatch]) -> MiniBatch:
        return MiniBatch(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]))

    def episode(parts: list[Episode]) -> Episode:
        names = ("support_x", "support_y", "query_x", "query_y")
        whole = {n: torch.cat([getattr(part, n) for part in parts]) for n in names}
        return replace(parts[0], **whole)

    joint = None
    if pairs := [s.joint for s in drawn if s.joint is not None]:
        joint = batch([b for b, _ in pairs]), episode([e for _, e in pairs])
    return StepData(batch([s.batch for s in drawn]), episode([s.episode for s in drawn]), joint)


def weights_of_one(folder: Path, name: str, whole: bool) -> dict[str, Tensor]:
    """What one process makes of the same samples: of both shards in turn, or of its own step."""
    experiment = instantiate(parse(case(name, BEFORE)))
    model = experiment.build()
    teacher, optimizer = Teacher(model), torch.optim.SGD(model.parameters(), RATE)
    modules = {"student": model, "teacher": teacher.model}
    load_checkpoint(folder / f"{name}-first" / "last.safetensors", modules)
    model.train()
    teacher.train()
    for step in range(BEFORE, BEFORE + TOGETHER):
        problem = experiment.problem
        drawn = shards(problem, model, 3, step)
        if whole:
            problem.shard(0, 1)
            is_acting = drawn[0].joint is not None
            drawn = (
                [side_by_side(drawn)]
                if is_acting
                else [problem.samples(step, chance(3, step), model)]
            )
        optimizer.zero_grad()
        for part in drawn:
            terms = model(part.batch, part.episode, teacher.model, step, part.joint)
            (terms["total"] if whole else terms["total"] / 2).backward()
        optimizer.step()
        teacher.update()
    return {name: p.detach() for name, p in model.named_parameters()}


# --- steps ---


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        *((name, False) for name in CASES if name != "hard-tasks-plain"),
        *((name, True) for name in WHOLE),
    ],
)
def test_the_gradient_of_two_processes_is_that_of_one_on_the_same_samples(
    folder: Path, name: str, whole: bool
) -> None:
    """Over two steps, of which torch does the first in another way than those that follow."""
    before, after = (
        tensors(folder / run / "last.safetensors", "student.") for run in (f"{name}-first", name)
    )
    expected = weights_of_one(folder, name, whole)
    moved = {key: (before[key] - after[key]) / RATE for key in expected}
    assert max(slope.abs().max() for slope in moved.values()) > 0.01
    for key, value in expected.items():
        torch.testing.assert_close(moved[key], (before[key] - value) / RATE, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*CASES, "first-step"])
def test_all_processes_have_the_same_weights(folder: Path, name: str) -> None:
    first, second = (
        {
            key: tensor
            for key, tensor in tensors(folder / f"{name}-{rank}.safetensors").items()
            if "running" not in key  # statistics of a process's own shard; rank 0's are kept
        }
        for rank in (0, 1)
    )
    assert same(first, second)


def test_what_is_reported_is_the_mean_over_processes(folder: Path) -> None:
    experiment = instantiate(parse(case("navigation", 1)))
    drawn = shards(experiment.problem, experiment.build(), 3, 0)
    expected = torch.stack([samples.report["return_joint"] for samples in drawn]).mean().item()
    found = {(step, key): value for step, key, value in metrics(folder / "first-step")}
    assert found[1, "return_joint"] == pytest.approx(expected, rel=1e-5)


# --- shards ---


def test_seeds_are_of_the_step_and_the_rank() -> None:
    seeds = [DistributedContext(rank, 2).rank_seed(step) for rank in (0, 1) for step in range(50)]
    assert len({*seeds}) == 100 and seeds[:50] == [*range(50)]
    assert all(0 <= DistributedContext(1, 2).rank_seed(seed) < 2**32 for seed in (-1, 0, 2**40))


@pytest.mark.parametrize("name", ["protonet", "sinusoids"])
def test_shards_are_together_the_samples_of_one_process(name: str) -> None:
    experiment = instantiate(parse(case(name, 1)))
    model, problem = experiment.build(), experiment.problem
    whole = problem.samples(4, chance(1, 4), model)
    first, second = shards(problem, model, 1, 4)
    for side in ("x", "y"):
        parts = [getattr(part.batch, side) for part in (first, second)]
        assert torch.equal(torch.cat(parts), getattr(whole.batch, side))
    ways = max(1, whole.episode.ways)
    for side in ("query_x", "query_y"):
        parts = [getattr(s.episode, side).unflatten(1, (ways, -1)) for s in (first, second)]
        assert torch.equal(torch.cat(parts, 2).flatten(1, 2), getattr(whole.episode, side))
    for part in (first, second):
        assert torch.equal(part.episode.support_x, whole.episode.support_x)
        assert torch.equal(part.episode.support_y, whole.episode.support_y)


def test_shards_of_acting_are_other_tasks_of_the_same_step() -> None:
    experiment = instantiate(parse(case("navigation", 1)))
    world, seen = experiment.problem.environment, []  # type: ignore[attr-defined]
    reset = world.reset

    def watched(tasks: Tensor, random: torch.Generator) -> Tensor:
        seen.append(tasks.unique(dim=0))
        return reset(tasks, random)

    world.reset = watched
    shards(experiment.problem, experiment.build(), 3, 0)
    whole = world.sample_tasks(4, chance(3, 0))
    each = len(seen) // 2
    for part, goals in enumerate(whole.chunk(2)):
        assert all(torch.equal(found, goals.unique(dim=0)) for found in seen[part * each :][:each])


@pytest.mark.parametrize(
    ("base", "parts", "line"),
    [
        (EVEN, 3, "problem.protocol.batch is 8: 3 processes cannot split it equally"),
        (EVEN, 8, "problem.protocol.queries is 4: 8 processes cannot split it equally"),
        (SINUSOIDS, 4, "number of points of a mini-batch is 50: 4 processes cannot split it"),
        (NAVIGATION, 3, "problem.tasks is 4: 3 processes cannot split it equally"),
    ],
)
def test_what_cannot_be_split_equally_is_refused(base: Values, parts: int, line: str) -> None:
    problem = instantiate(parse(base)).problem
    with pytest.raises(InputError, match=line):
        problem.shard(0, parts)
    problem.shard(1, 2)
    problem.shard(0, 2)  # of the whole, not of the shard
    model = instantiate(parse(base)).build()
    whole = instantiate(parse(base)).problem
    random = torch.Generator
    one, two = (p.samples(0, random().manual_seed(0), model) for p in (whole, problem))
    assert len(one.batch.x) == 2 * len(two.batch.x)


def test_a_problem_without_shardable_is_for_one_process() -> None:
    class Own(type(instantiate(parse(SINUSOIDS)).problem)):  # type: ignore[misc]
        shardable: Mapping[str, int] = {}

    with pytest.raises(InputError, match="Own has no property 'shardable'"):
        Own().shard(0, 2)
    Own().shard(0, 1)


@pytest.mark.parametrize(
    ("options", "device", "line"),
    [
        ({"optimizer": "trpo"}, "cpu", "training.optimizer 'trpo' is for one process"),
        ({"patience": 2}, "cpu", "training.patience is for one process"),
        ({"precision": "auto"}, "cpu", "training.precision 'auto' is for one process"),
        ({}, "mps", "training.device is mps, where several processes cannot train"),
        ({}, "cuda:1", "training.device names GPU 1 for every process"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(
    options: dict[str, Any], device: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    check_distributed(Training(**options), torch.device(device), DistributedContext())
    check_distributed(Training(), torch.device("cuda:0"), DistributedContext(1, 2))
    with pytest.raises(InputError, match=line):
        check_distributed(Training(**options), torch.device(device), DistributedContext(1, 2))


# --- starting ---


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "waves.yaml"
    path.write_text(yaml.safe_dump(merge(SINUSOIDS, {"training": {"val_every": 4, **NO_LOGGERS}})))
    return path


def test_a_run_moves_between_numbers_of_processes(waves: Path, tmp_path: Path) -> None:
    """From two processes of torchrun to one, and back to two by variables as srun sets them."""
    out, rest = tmp_path / "run", ["train", waves, "--out", tmp_path / "run"]
    ((output, log),) = ended([omni(*rest, "--devices", 2)])
    assert output.count("again: ") == 1 and log.count("step 4, validation") == 1
    assert json.loads((out / "provenance.json").read_text())["processes"] == 2
    assert main([*map(str, rest), "--resume", "--training.steps", "6"]) == 0
    assert json.loads((out / "provenance.json").read_text())["processes"] == 1
    slurm = {"SLURM_STEP_NUM_TASKS": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    words = [*rest, "--resume", "--training.steps", 8]
    first, second = ended(
        [omni(*words, SLURM_PROCID=r, SLURM_LOCALID=r, **slurm) for r in ("0", "1")]
    )
    assert "again: " in first[0] and second == ("", "")
    state = load_checkpoint(Run(out).checkpoint("last"), {})
    assert state["step"] == 8 and "processes" not in state


def ended(processes: list["subprocess.Popen[str]"]) -> list[tuple[str, str]]:
    """What each wrote to its two streams; none has failed."""
    written = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(written), written
    return written


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--devices", "0"], "--devices is 0: it must be 1 or more"),
        (["--nodes", "2"], "--nodes and --rendezvous are gone: on each machine, run torchrun"),
    ],
)
def test_wrong_numbers_are_one_line(
    arguments: list[str], line: str, waves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(waves), "--out", str(tmp_path / "run"), *arguments]) == 2
    assert line in (message := capsys.readouterr().err) and message.count("\n") == 1


def test_more_processes_than_gpus_are_refused(
    waves: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert main(["train", str(waves), "--devices", "2"]) == 2
    assert "--devices is 2, but GPUs on this machine are 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script, without srun
        {"SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_STEP_NUM_TASKS": "2"},
    ],
)
def test_one_process_joins_no_other_and_several_need_an_address(
    variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if variables == {"SLURM_STEP_NUM_TASKS": "2"}:
        with pytest.raises(InputError, match="export MASTER_ADDR="), process_group():
            pass
        return
    with process_group() as context:
        assert context == current_context() == DistributedContext()


# --- failing ---


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("nan", r"omni: (loss term l_pre|the gradient) became nan on the .* of training step 2"),
        ("killed", "omni: process 1 was ended by SIGKILL, which is mostly for lack of memory"),
    ],
)
def test_a_failure_of_one_ends_all_with_one_line(how: str, line: str, tmp_path: Path) -> None:
    values = merge(SINUSOIDS, {"training": {"steps": 6, "val_every": 2, **NO_LOGGERS}})
    values["problem"] = {
        "class_path": "tests.reference.together.Failing",
        "init_args": {"how": how},
    }
    config = tmp_path / "failing.yaml"
    config.write_text(yaml.safe_dump(values))
    process = omni("train", config, "--devices", 2, "--out", tmp_path / "run")
    _, log = process.communicate(timeout=120)
    lines = [text for text in log.splitlines() if "validation" not in text]
    assert process.returncode == 2 and len(lines) == 1 and re.match(line, lines[0]), log
    assert load_checkpoint(tmp_path / "run" / "last.safetensors", {})["step"] == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_an_interrupt_ends_all_processes(waves: Path, tmp_path: Path) -> None:
    length = ("--training.steps", 10**6, "--training.val_every", 100)
    process = omni("train", waves, "--devices", 2, "--out", tmp_path / "run", *length)
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "last.safetensors").is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 130
    lines = [text for text in log.splitlines() if "validation" not in text]
    assert lines == ["omni: interrupted; continue a run with --resume"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
