"""One run: a configuration trained into a folder, and evaluated there."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from jsonargparse import Namespace

from omnitraining.config.run_config import (
    RunConfig,
    config_of,
    dump,
    instantiate,
    load_run,
    parse,
    plan_of,
)
from omnitraining.config.trust import Check, flat
from omnitraining.distributed import current_context
from omnitraining.errors import InputError
from omnitraining.evaluation import Evaluation
from omnitraining.learner.trained import calibrate_run
from omnitraining.memory import memory_reused
from omnitraining.model import Model
from omnitraining.runs import run_data
from omnitraining.runs.compute import multiply_adds
from omnitraining.runs.paths import absolute_paths, paths_as_text, relative_paths
from omnitraining.runs.run import Run, provenance, training_state
from omnitraining.tasks.base import Problem
from omnitraining.threads import cpu_threads
from omnitraining.training import (
    Progress,
    check_distributed,
    find_device,
    train,
)

RESUMABLE = (
    "training.steps",
    "training.val_every",
    "training.device",
    "training.threads",
    "training.loggers",
)
"""Fields that may change when a run is resumed: how long and where, not what."""


def train_run(
    config: Namespace,
    folder: Path,
    resume: bool = False,
    progress: Progress | None = None,
    trust: bool = False,
    changed_data: bool = False,
) -> Run:
    """Train a configuration into a folder, which becomes a run.

    Args:
        config: the caller's own; the classes that it names are run.
        folder: of the run.
        resume: continue the run in the folder.
        progress: receives losses and scores.
        trust: whether other runs that it names, as ``start``, may run classes from outside this
            library.
        changed_data: continue although files of the data have changed.

    Raises:
        InputError: the folder already holds a run and ``resume`` is not set, or the other way
            round; another process trains it; its data have changed; or something in the
            configuration does not fit.
    """
    _check_folder(folder, resume)
    context = current_context()
    if not context.is_main_process:
        context.barrier()  # so that none finds what process 0 writes
        return _train(config, folder, resume, progress, trust, changed_data)
    # Wrong input leaves no trace: a folder that is made here is removed if it stays empty.
    with _made(folder), Run(folder, create=True).training_lock():
        _check_folder(folder, resume)  # another process may have made it
        context.barrier()
        return _train(config, folder, resume, progress, trust, changed_data)


def _check_folder(folder: Path, resume: bool) -> None:
    if (folder / "config.yaml").is_file() and not resume:
        raise InputError(f"{folder} already holds a run: add --resume, or choose another --out")
    if resume and not folder.is_dir():
        raise InputError(f"nothing to resume at {folder}: there is no such folder")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: a run is a folder")


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; those made here are removed again if they stay empty."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # it is not empty
            for place in missing:
                place.rmdir()


def _train(
    config: Namespace,
    folder: Path,
    resume: bool,
    progress: Progress | None,
    trust: bool,
    changed_data: bool,
) -> Run:
    """Train into a folder that no other process writes to."""
    config = absolute_paths(config, Path())
    run_config = instantiate(config)
    device, context = find_device(run_config.training.device), current_context()
    check_distributed(run_config.training, device, context)
    run_config.problem.shard(context.rank, context.world_size)
    model = run_config.build(trust)
    _try_out(run_config, model)
    changes: tuple[str, ...] = ()
    run = Run(folder, create=True)
    if (folder / "config.yaml").is_file():
        _check_unchanged(Run(folder), config)
    started = resume and run.checkpoint("last").is_file()
    if started:
        done = training_state(run.checkpoint("last"))["step"]
        if done > run_config.training.steps:
            raise InputError(
                f"training.steps is {run_config.training.steps}, but {folder} is at step {done}: "
                "it must be that or more"
            )
        found = run_data.check(run, run_config.problem, resuming=True, accept=changed_data)
        changes = tuple(f"before step {done + 1}: {change}" for change in found)
    cost = None
    if context.is_main_process:
        cost = multiply_adds(model, run_config.problem, device, run_config.training.steps)
    context.barrier()  # so that none has read what process 0 writes now
    if context.is_main_process:
        _write_origin(run, config, run_config.problem, changes)
    with cpu_threads(run_config.training.threads):
        state = train(
            model,
            run_config.problem,
            run_config.training,
            run_config.inference,
            run,
            run_config.seed,
            started,
            progress,
        )
        if context.is_main_process:
            run.write_json("provenance.json", provenance() | state | {"multiply_adds": cost})
            _calibrate(run, run_config)
    return run


def _write_origin(run: Run, config: Namespace, problem: Problem, changes: tuple[str, ...]) -> None:
    """Write down what a run is trained with, and on."""
    before = run_data.read(run)
    places = paths_as_text(config)
    data = run_data.describe(problem, places)
    if data is None and places:
        data = run_data.RunData(places=places)
    if data is not None:
        known = before.changes if before else ()
        run_data.write(run, replace(data, changes=(*known, *changes)))
    run.write_text("config.yaml", dump(relative_paths(config, run.path)))


def _calibrate(run: Run, run_config: RunConfig) -> None:
    """Measure on its validation tasks what learners of a run need, if its data are in files.

    The files may be gone when a learner is loaded. Problems without files generate their data
    again.
    """
    data = run_data.read(run)
    if not run.checkpoint("best").is_file():  # no validation had a score
        return
    if data is not None and data.inputs is not None and data.is_of_files:
        run_config.problem.to(torch.device("cpu"))
        calibrate_run(run, run_config, run_config.load(run).cpu())


@torch.no_grad()
def _try_out(run_config: RunConfig, model: Model) -> None:
    """The losses of one step, to find out before training whether the parts fit together."""
    if not model.trained_flows:
        raise InputError(
            f"{run_config.method} has no loss to train with: loss.l_pre, loss.l_joint or "
            "loss.l_meta must be true"
        )
    run_config.inference.check(run_config.problem.kind, model)
    run_config.training.make_optimizer(model)
    problem, random = run_config.problem, torch.Generator().manual_seed(0)
    problem.check(model)
    meta = run_config.metatraining
    ways = problem.meta_outputs
    refused = sorted(n for n in problem.test_outputs if not meta.takes_ways(n, ways))
    if refused and {"meta", "joint_meta"} & {*model.networks}:
        most = "at most as" if meta.limited_ways else "as"
        raise InputError(
            f"{type(meta).__name__} answers tasks of {most} many ways as it was trained on, "
            f"{ways}, but there are test tasks of {refused[0]}: set protocol.ways and "
            "protocol.test_ways alike, or leave that benchmark out"
        )
    try:
        samples = problem.samples(model.loss.all_entered_at, random, model.eval())
        model(samples.batch, samples.episode, joint=samples.joint)
    except RuntimeError as error:
        parts = (problem, run_config.pretraining, run_config.metatraining)
        raise InputError(
            f"{', '.join(type(part).__name__ for part in parts)} do not fit together: "
            f"{str(error).splitlines()[0]}"
        ) from error


def changed_fields(run: Run, config: Namespace) -> list[str]:
    """Fields in which a configuration differs from the configuration of a run.

    Nothing that the run's configuration names is imported or made.

    Raises:
        InputError: the run names a class from outside this library that the configuration does
            not name, and the run is not trusted.
    """
    given = yaml.safe_load(dump(absolute_paths(config, Path())))
    if run.trust:
        old, new = (dict(one.items()) for one in (config_of(run), parse(given)))
    else:
        check = Check("configuration", foreign=None)
        new = flat(check.plan(given, RunConfig))
        old = flat(plan_of(run, frozenset({*check.named, ""})))  # never empty: nothing is limited
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def _check_unchanged(run: Run, config: Namespace) -> None:
    changed = [name for name in changed_fields(run, config) if name not in RESUMABLE]
    if changed:
        raise InputError(
            f"{run.path} was trained with another {', '.join(changed)}: only "
            f"{', '.join(RESUMABLE)} may change with --resume"
        )


def evaluate_run(
    run: Run, tasks: int | None = None, shots: tuple[int, ...] = (), name: str = "test"
) -> Evaluation:
    """Evaluate a run on the fixed test tasks and keep the result in its folder.

    Args:
        run: the run folder.
        tasks: test tasks per cell, from 2 to all that the problem has, the default.
        shots: support samples; as configured if not given.
        name: of the record in ``evaluations/``.

    Raises:
        InputError: the run cannot be evaluated, or the result cannot be written.
    """
    evaluation = compute_evaluation(run, tasks, shots)
    run.save_evaluation(name, evaluation)
    return evaluation


def compute_evaluation(
    run: Run, tasks: int | None = None, shots: tuple[int, ...] = ()
) -> Evaluation:
    """The evaluation alone, as for a run that may only be read."""
    run_config = load_run(run)
    problem = run_config.problem
    tasks = problem.test_tasks if tasks is None else tasks
    if not 2 <= tasks <= problem.test_tasks:
        raise InputError(f"--tasks is {tasks}: it must be from 2 to {problem.test_tasks}")
    with cpu_threads(run_config.training.threads), memory_reused():
        model = run_config.ready(run)  # which moves the data to the device
        if shots:
            problem = problem.with_test_shots(shots)
        return problem.evaluate(model, run_config.inference, tasks)
