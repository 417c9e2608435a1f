"""The one training loop, for every method and every kind of problem."""

import copy
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from omnitraining import distributed
from omnitraining.batches import StepData
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE, Inference
from omnitraining.model import Model
from omnitraining.policies.gaussian import GaussianHead
from omnitraining.policies.trpo import TRPO
from omnitraining.runs.run import (
    Metrics,
    Run,
    load_checkpoint,
    peak_memory,
    save_checkpoint,
    training_facts,
)
from omnitraining.tasks.base import Problem
from omnitraining.teacher import Teacher

REPORT_EVERY = 50  # steps, but at least once an epoch
GRADIENT = "gradient"  # beside the names of loss terms


@dataclass(frozen=True)
class Training:
    """How long and how to optimize.

    Args:
        steps: optimizer steps; each sees one mini-batch and one episode. 0 evaluates the
            untrained model.
        val_every: steps between validations and checkpoints.
        optimizer: ``"adam"`` or ``"sgd"``; or ``"trpo"``, for policies.
        lr: learning rate at the start; of ``"trpo"``, the KL divergence that a step may reach.
        schedule: ``"constant"``, ``"linear"`` or ``"cosine"`` decay to 0, or ``"step"``: times
            ``gamma`` at every milestone.
        weight_decay: of ``"sgd"`` an L2 penalty, of ``"adam"`` decoupled from the gradient (AdamW).
        momentum: of ``"sgd"``.
        nesterov: Nesterov's form of that momentum.
        warmup: steps over which the learning rate rises linearly from 0, before the schedule's.
        milestones: of ``"step"``, as rising parts of all steps between 0 and 1.
        gamma: of ``"step"``.
        clip: largest Euclidean norm of the gradient, which is scaled down to it; no limit if not
            given.
        patience: validations in a row without a new best score after which training ends; if not
            given, it never ends early.
        precision: ``"float32"``; ``"bfloat16"`` by autocast; or ``"auto"``: bfloat16 where a short
            trial before the first step finds it faster, as on GPUs and processors with AMX.
        device: ``"auto"`` takes the GPU where there is one; or torch's name, as ``"cuda:1"``.
        threads: CPU threads; torch's choice if not given.
    """

    steps: int = 3000
    val_every: int = 250
    optimizer: Literal["adam", "sgd", "trpo"] = "adam"
    lr: float = 1e-3
    schedule: Literal["constant", "linear", "cosine", "step"] = "constant"
    weight_decay: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    warmup: int = 0
    milestones: tuple[float, ...] = (0.6, 0.8)
    gamma: float = 0.1
    clip: float | None = None
    patience: int | None = None
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("val_every", 1)):
            if (value := getattr(self, name)) < least:
                raise InputError(f"training.{name} is {value}: it must be {least} or more")
        if not self.lr > 0:
            raise InputError(f"training.lr is {self.lr}: it must be greater than 0")
        if self.weight_decay < 0:
            raise InputError(f"training.weight_decay is {self.weight_decay}: it must be 0 or more")
        for name in ("threads", "patience"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"training.{name} is {value}: it must be 1 or more")
        if not 0 <= self.momentum < 1:
            raise InputError(f"training.momentum is {self.momentum}: it must be in [0, 1)")
        if self.nesterov and not self.momentum:
            raise InputError("training.nesterov is true, but training.momentum is 0: set both")
        if self.momentum and self.optimizer != "sgd":
            raise InputError(
                f"training.momentum is {self.momentum}, but training.optimizer is "
                f"{self.optimizer!r}: only 'sgd' has it"
            )
        if not 0 <= self.warmup <= self.steps:
            raise InputError(
                f"training.warmup is {self.warmup}: it must be from 0 to the "
                f"{self.steps} of training.steps"
            )
        if [*self.milestones] != sorted({*self.milestones}) or not all(
            0 < part < 1 for part in self.milestones
        ):
            raise InputError(
                f"training.milestones is {self.milestones}: give rising parts of all steps, "
                "between 0 and 1"
            )
        if not 0 < self.gamma <= 1:
            raise InputError(f"training.gamma is {self.gamma}: it must be in (0, 1]")
        if self.clip is not None and not self.clip > 0:
            raise InputError(f"training.clip is {self.clip}: it must be greater than 0")

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / (self.steps - self.warmup)
        decay = {
            "constant": 1.0,
            "linear": 1 - done,
            "cosine": (1 + math.cos(math.pi * done)) / 2,
            "step": self.gamma ** sum(step / self.steps >= part for part in self.milestones),
        }
        return self.lr * decay[self.schedule]

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                model.parameters(),
                self.lr,
                self.momentum,
                weight_decay=self.weight_decay,
                nesterov=self.nesterov,
            )
        if self.optimizer == "trpo":
            if not any(isinstance(module, GaussianHead) for module in model.modules()):
                raise InputError("training.optimizer is 'trpo', which is for policies alone")
            return TRPO(model.parameters(), self.lr)
        return torch.optim.AdamW(model.parameters(), self.lr, weight_decay=self.weight_decay)


@runtime_checkable
class Scheduled(Protocol):
    """A module that changes in the course of training, as `DropBlock` does."""

    def at_step(self, step: int, steps: int) -> None:
        """Called before each step; the state must depend on nothing else, for runs to resume.

        Args:
            step: the step to come, counted from 0.
            steps: all steps of the training.
        """


class Progress:
    """Callbacks of a training; the default ignores them."""

    def begins(self, done: int, steps: int, plan: str) -> None:
        """Before the first step, with those that were done before, and what will be done."""

    def moved(self, done: int, steps: int) -> None:
        """After each step."""

    def step(self, done: int, steps: int, terms: dict[str, float]) -> None:
        """After some steps, with the mean losses since the last call."""

    def validated(self, done: int, score: float, best: float) -> None:
        """After a validation."""

    def note(self, line: str) -> None:
        """A choice that was made, or a reason to stop, in one line."""


def train(
    model: Model,
    problem: Problem,
    training: Training,
    inference: Inference,
    run: Run,
    seed: int = 0,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Train a model into a run folder; the best checkpoint is the one to predict with.

    The samples of a step depend only on the seed and the step, so a killed run resumes and ends
    in the same weights. Processes that have joined (`omnitraining.distributed`) share every step.

    Args:
        model: from `build_model`; changed in place, and left at the last step.
        problem: batches, episodes, validation.
        training: how to optimize.
        inference: how to predict in validation.
        run: where checkpoints and metrics go.
        seed: of the samples.
        resume: go on from the last checkpoint.
        progress: told of losses and scores.

    Returns:
        Step and score of the best checkpoint, wall seconds (in all, and of the steps without
        validation), the precision, and peak MiB.

    Raises:
        InputError: a loss is not finite (the last good checkpoint stays), there is nothing to
            resume from, or the processes cannot share what a step sees.
    """
    if training.threads:
        torch.set_num_threads(training.threads)
    device, team = find_device(training.device), distributed.team()
    team.check(device, training.optimizer)
    if team.size > 1 and (training.patience or training.precision == "auto"):
        raise InputError(
            "training.patience and training.precision 'auto' need one process: leave them out, or "
            "state the precision"
        )
    problem.shard(team.rank, team.size)
    problem.to(device)
    model.to(device)
    if problem.example().dim() == 4:
        # Twice as fast for convolutions on a CPU. torch's own signature lacks the argument.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher, optimizer = Teacher(model, model.loss.ema_decay), training.make_optimizer(model)
    modules: dict[str, nn.Module] = {"student": model, "teacher": teacher.model}
    facts: dict[str, Any] = {
        "step": 0, "best_step": 0, "best": -math.inf, "seconds": 0.0, "seconds_of_steps": 0.0
    }  # fmt: skip
    if resume:
        last = run.checkpoint("last")
        facts = training_facts(last, load_checkpoint(last, modules, optimizer))
    scheduled = [module for module in model.modules() if isinstance(module, Scheduled)]
    student = team.wrapped(model)
    progress = progress if progress and team.leads else Progress()
    progress.begins(facts["step"], training.steps, _plan(model, problem, training, device))
    if training.precision != "auto":
        facts["precision"] = training.precision
    elif facts.get("precision") is None:  # a resumed run goes on in the precision it began with
        facts["precision"], reason = faster_precision(model, problem, device)
        progress.note(f"precision {facts['precision']}: {reason}")
    model.train()
    teacher.train()
    start, before = time.monotonic(), facts["seconds"]
    unreported: list[dict[str, Tensor]] = []  # terms of the steps since the last report
    with closing(Metrics(run, facts["step"], silent=not team.leads)) as metrics:

        def conclude_epoch(done: int) -> None:
            _check_weights(model, done)
            if not team.leads:
                return
            scores, logged = {}, {}
            for name, judged in (("student", model), ("teacher", teacher.model)):
                if inference.weights in (name, "best"):
                    heads = problem.validation_scores(judged.eval(), inference)
                    scores[name] = logged[f"validation_{name}"] = heads.pop(ENSEMBLE)
                    logged |= {f"validation_{name}_{flow}": s for flow, s in heads.items()}
            metrics.write(done, logged)
            weights, score = max(scores.items(), key=lambda item: item[1])
            if score > facts["best"]:
                facts.update(best=score, best_step=done, best_weights=weights)
            model.train()
            teacher.train()
            facts.update(step=done, seconds=before + time.monotonic() - start)
            # The last one comes last: a run killed before it is as if this epoch had not been.
            for which in ("best", "last") if facts["best_step"] == done else ("last",):
                save_checkpoint(run.checkpoint(which), modules, optimizer, facts)
            progress.validated(done, score, facts["best"])

        if training.steps == 0:
            conclude_epoch(0)
        steps = range(facts["step"], training.steps)
        for step in () if _is_exhausted(training, facts) else steps:
            start_of_step = seed * 1_000_003 + step
            random = torch.Generator().manual_seed(start_of_step)
            torch.manual_seed(team.chance(start_of_step))  # dropout and the like
            for group in optimizer.param_groups:
                group["lr"] = training.lr_at(step)
            for module in scheduled:
                module.at_step(step, training.steps)
            begun = time.monotonic()
            samples = _samples(problem, model, random, step)
            autocast = torch.autocast(
                device.type, torch.bfloat16, enabled=facts["precision"] == "bfloat16"
            )
            terms = update(
                student, model, teacher, optimizer, samples, step, autocast, training.clip
            )
            facts["seconds_of_steps"] = (
                facts.get("seconds_of_steps", 0.0) + time.monotonic() - begun
            )
            unreported.append({**terms, **samples.report})
            done = step + 1
            progress.moved(done, training.steps)
            ends_epoch = done % training.val_every == 0 or done == training.steps
            if done % REPORT_EVERY == 0 or ends_epoch:
                means = team.means(_means(unreported, done))
                metrics.write(done, means)
                progress.step(done, training.steps, means)
                unreported = []
            if ends_epoch:
                conclude_epoch(done)
                team.wait()  # a failure in the next step must not cost this checkpoint
                if _is_exhausted(training, facts):
                    progress.note(_ended_early(training, facts))
                    break
    return facts | {"peak_mib": peak_memory()}


def _plan(model: Model, problem: Problem, training: Training, device: torch.device) -> str:
    """What training will do, in words."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{training.steps} steps on {device}, validation every {training.val_every}, "
        f"flows {', '.join(model.trained_flows)} with {weights:,} weights; {problem.summary}"
    )


def _is_exhausted(training: Training, facts: Mapping[str, Any]) -> bool:
    """Whether the last validations brought no new best score, as many as patience allows."""
    since = facts["step"] - facts["best_step"]
    return training.patience is not None and since >= training.patience * training.val_every


def _ended_early(training: Training, facts: Mapping[str, Any]) -> str:
    return (
        f"ended at step {facts['step']} of {training.steps}: no better validation score since step "
        f"{facts['best_step']}, for {training.patience} validations (training.patience)"
    )


TRIAL_STEPS = 3  # timed ones of each precision, after one that is not timed
PAYS = 1.1  # times as fast as float32 bfloat16 must be to be taken


def faster_precision(model: Model, problem: Problem, device: torch.device) -> tuple[str, str]:
    """The precision in which a step takes the least time here, and the reason in words.

    A copy of the model is tried on the samples of step 0, in both precisions by turns; the model
    and the run's random numbers stay as they are.

    Args:
        model: to be trained, on the device.
        problem: its samples.
        device: of both.
    """
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "float32", "this GPU has no bfloat16"
    tried = copy.deepcopy(model).train()
    random = torch.Generator().manual_seed(0)
    samples = problem.samples(0, random, tried)
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    with torch.random.fork_rng():
        for turn in range(TRIAL_STEPS + 1):
            for precision, times in seconds.items():
                start = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    terms = tried(samples.batch, samples.episode, joint=samples.joint)
                terms["total"].backward()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if turn:
                    times.append(time.perf_counter() - start)
                if precision == "bfloat16" and not terms["total"].isfinite():
                    return "float32", "the loss is not finite in bfloat16"
    ratio = min(seconds["float32"]) / min(seconds["bfloat16"])
    reason = f"a step in bfloat16 is {ratio:.2f} times as fast as in float32 here"
    return ("bfloat16" if ratio >= PAYS else "float32"), reason


def _samples(problem: Problem, model: Model, random: torch.Generator, step: int) -> StepData:
    try:
        return problem.samples(step, random, model)
    except InputError as error:
        raise InputError(
            f"{error}, in training step {step}; the last good checkpoint is kept"
        ) from error


def update(
    student: nn.Module,
    model: Model,
    teacher: Teacher[Model],
    optimizer: torch.optim.Optimizer,
    samples: StepData,
    step: int,
    autocast: torch.autocast,
    clip: float | None = None,
) -> dict[str, Tensor]:
    """One step of the optimizer and of the teacher.

    ``student`` is the model, as it is called where processes share its gradients.

    Returns:
        The loss terms before it, and the greatest component of the gradient.
    """
    parts = samples.batch, samples.episode

    def losses() -> dict[str, Tensor]:
        with autocast:
            terms: dict[str, Tensor] = student(*parts, teacher.model, step, samples.joint)
        return terms

    terms = losses()
    if isinstance(optimizer, TRPO):
        optimizer.step(
            terms["total"],
            lambda: losses()["total"],
            lambda: model.outputs(*parts, joint=samples.joint),
        )
    else:
        optimizer.zero_grad()
        terms["total"].backward()
        slopes = [p.grad for p in model.parameters() if p.grad is not None]
        terms[GRADIENT] = get_total_norm(slopes, math.inf)
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    teacher.update()
    return {name: term.detach() for name, term in terms.items()}


def find_device(name: str) -> torch.device:
    """The device of a name; ``"auto"`` is CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"training.device is {name!r}, which is not usable here: {first}"
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
    """What was not finite first, and on which samples.

    Whoever wants to see these can make them anew: they depend on the seed and the step alone.
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


def _check_weights(model: Model, done: int) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(
                f"weights {name} are not finite at or shortly before step {done}; the last good "
                "checkpoint is kept: lower training.lr or loss.distill_weight"
            )
