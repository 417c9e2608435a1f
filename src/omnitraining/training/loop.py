"""The training loop, for every method and every kind of problem."""

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from omnitraining.batches import StepData
from omnitraining.distributed import DistributedContext, current_context
from omnitraining.errors import InputError
from omnitraining.evaluation import Inference
from omnitraining.limits import check_seed, step_at
from omnitraining.memory import memory_reused
from omnitraining.model import Model
from omnitraining.runs.run import Metrics, Run, peak_memory
from omnitraining.tasks.base import Problem
from omnitraining.threads import cpu_threads
from omnitraining.training.checkpointer import Checkpointer
from omnitraining.training.options import Training, find_device
from omnitraining.training.progress import REPORT_EVERY, Progress
from omnitraining.training.stepper import GRADIENT, Stepper


def train(
    model: Model,
    problem: Problem,
    training: Training,
    inference: Inference,
    run: Run,
    seed: int = 0,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a model into a run folder; the best checkpoint is the one to predict with.

    The samples of a step depend on the seed, the step and what is in the checkpoint alone, so an
    interrupted run resumes to the same weights. Inside `omnitraining.distributed.process_group`
    each process trains on a shard of every step.

    Args:
        model: from `build_model`; changed in place, and left at the last step.
        problem: source of samples and validation tasks.
        training: length, optimizer, precision.
        inference: how to predict in validation.
        run: folder of checkpoints and metrics.
        seed: of the samples.
        resume: continue from the last checkpoint.
        progress: receives losses and scores.

    Returns:
        Step and score of the best checkpoint, wall seconds (in all, and of the steps without
        validation), the precision, and peak MiB.

    Raises:
        InputError: a loss is not finite (the last good checkpoint stays), there is nothing to
            resume from, several processes cannot split a step, or the model is for another kind of
            problem.

    Examples:
        >>> from tempfile import mkdtemp
        >>> from omnitraining import MAML, MLP, Inference, L2Regression, Run, Sinusoids, build_model
        >>> problem = Sinusoids(waves=20, test_shots=(5,), test_steps=1)
        >>> parts = problem, L2Regression(), MAML(task="regression")
        >>> model = build_model("joint-training", lambda: MLP(hidden=(8,)), *parts)
        >>> run = Run(mkdtemp(), create=True)
        >>> train(model, problem, Training(steps=2, val_every=2), Inference(), run)["step"]
        2
    """
    check_seed("seed", seed)
    device, context = find_device(training.device), current_context()
    check_distributed(training, device, context)
    for name in ("branch_at", "meta_at"):
        at = step_at(getattr(model.loss, name), training.steps)
        if 0 < training.steps <= at:
            raise InputError(
                f"loss.{name} is {at}: it must be less than the {training.steps} of training.steps"
            )
    problem.shard(context.rank, context.world_size)
    problem.check(model)
    inference.check(problem.kind, model)
    if progress is None or not context.is_main_process:
        progress = Progress()
    with cpu_threads(training.threads), memory_reused():
        stepper = Stepper(model, problem, training, device, context)
        checkpointer = Checkpointer(run, stepper, inference, progress)
        if resume:
            checkpointer.resume()
        state = checkpointer.state
        progress.begin(state["step"], training.steps, _plan(model, problem, training, device))
        if stepper.precision == "auto":
            reason = stepper.choose_precision()
            progress.note(f"precision {stepper.precision}: {reason}")
        state["precision"] = stepper.precision
        silent = not context.is_main_process
        with closing(Metrics(run, state["step"], silent, training.loggers)) as metrics:
            _loop(stepper, checkpointer, metrics, progress, seed)
    return state | {"peak_mib": peak_memory()}


def _loop(
    stepper: Stepper, checkpointer: Checkpointer, metrics: Metrics, progress: Progress, seed: int
) -> None:
    """The steps from the one that the state is at to the last."""
    training, state = stepper.training, checkpointer.state
    if training.steps == 0:
        checkpointer.end_epoch(0, metrics)
    if _is_exhausted(training, state):
        return
    unreported: list[dict[str, Tensor]] = []  # terms of the steps since the last report
    for step in range(state["step"], training.steps):
        start = time.monotonic()
        samples = _samples(stepper, step, seed)
        unreported.append({**stepper.update(samples, step), **samples.report})
        state["seconds_of_steps"] += time.monotonic() - start
        done = step + 1
        progress.advance(done, training.steps)
        ends_epoch = done % training.val_every == 0 or done == training.steps
        if done % REPORT_EVERY == 0 or ends_epoch:
            means = stepper.context.all_reduce_mean(_means(unreported, done))
            metrics.write(done, means)
            progress.step(done, training.steps, means)
            unreported = []
        if ends_epoch:
            checkpointer.end_epoch(done, metrics)
            stepper.context.barrier()  # a failure in the next step must not cost this checkpoint
            if _is_exhausted(training, state):
                progress.note(_ended_early(training, state))
                return


def check_distributed(
    training: Training, device: torch.device, context: DistributedContext
) -> None:
    """Refuse what several processes cannot do.

    Args:
        training: the options.
        device: that ``training.device`` names.
        context: rank and number of processes.

    Raises:
        InputError: an option is for one process, or the device is neither the CPU nor the GPU of
            this process.
    """
    if context.world_size == 1:
        return
    for name, used in (
        ("training.optimizer 'trpo'", training.optimizer == "trpo"),
        ("training.patience", training.patience is not None),
        ("training.precision 'auto'", training.precision == "auto"),
    ):
        if used:
            raise InputError(f"{name} is for one process: change it, or train with one")
    if device.type not in ("cpu", "cuda"):
        raise InputError(
            f"training.device is {device.type}, where several processes cannot train: set it to cpu"
        )
    if device.index is not None and device.index != torch.cuda.current_device():
        raise InputError(
            f"training.device names GPU {device.index} for every process: leave it at 'auto', and "
            "each takes its own"
        )


def _plan(model: Model, problem: Problem, training: Training, device: torch.device) -> str:
    """The training in a line."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{training.steps} steps on {device}, validation every {training.val_every}, "
        f"flows {', '.join(model.trained_flows)} with {weights:,} weights; {problem.summary}"
    )


def _is_exhausted(training: Training, state: Mapping[str, Any]) -> bool:
    """Whether the last ``patience`` validations gave no new best score."""
    since = state["step"] - state["best_step"]
    return training.patience is not None and since >= training.patience * training.val_every


def _ended_early(training: Training, state: Mapping[str, Any]) -> str:
    return (
        f"ended at step {state['step']} of {training.steps}: no better validation score since step "
        f"{state['best_step']}, for {training.patience} validations (training.patience)"
    )


def _samples(stepper: Stepper, step: int, seed: int) -> StepData:
    try:
        return stepper.samples(step, seed)
    except InputError as error:
        raise InputError(
            f"{error}, in training step {step}; the last good checkpoint is kept"
        ) from error


def _means(steps: list[dict[str, Tensor]], done: int) -> dict[str, float]:
    """Mean terms of the last steps.

    Args:
        steps: terms of each.
        done: number of the last one, from 1.

    Raises:
        InputError: one of them is not finite.
    """
    means = {}
    for name in {name: None for terms in steps for name in terms}:
        values = torch.stack([terms[name] for terms in steps if name in terms])
        if not values.isfinite().all():
            raise _first_bad(steps, done)
        means[name] = (values.sum() / len(steps)).item()
    means.pop(GRADIENT, None)
    return means


def _first_bad(steps: list[dict[str, Tensor]], done: int) -> InputError:
    """The error that names the first term that is not finite, its step and its samples.

    The samples can mostly be drawn again, since they depend on the seed and the step alone, but
    where policies act or a curriculum chooses classes.
    """
    step, name, value = next(  # the total comes after its terms
        (step, name, term.item())
        for step, terms in enumerate(steps, start=done - len(steps))
        for name, term in terms.items()
        if not term.isfinite()
    )
    samples = {"pre": "mini-batch", "meta": "episode"}.get(name.rpartition("_")[2], "samples")
    what = "the gradient" if name == GRADIENT else f"loss term {name}"
    weight = "loss.distill_weight" if name == GRADIENT else "the weight of that term"
    return InputError(
        f"{what} became {value} on the {samples} of training step {step} (counted from 0); the "
        f"last good checkpoint is kept: lower training.lr or {weight}"
    )
