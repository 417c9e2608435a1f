"""The training loop, for every method and every kind of problem."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from omnitraining.batches import StepData
from omnitraining.distributed import DistributedContext, current_context
from omnitraining.errors import InputError
from omnitraining.evaluation import Inference
from omnitraining.model import Model
from omnitraining.policies.gaussian import GaussianHead
from omnitraining.policies.trpo import TRPO
from omnitraining.runs.checkpointer import Checkpointer
from omnitraining.runs.run import Metrics, Run, peak_memory
from omnitraining.stepper import GRADIENT, Stepper
from omnitraining.tasks.base import Problem

REPORT_EVERY = 50
"""Steps between reports of losses; there is one at every validation too."""


@dataclass(frozen=True)
class Training:
    """Length, optimizer, schedule, precision and device of a training.

    Args:
        steps: optimizer steps; each sees one mini-batch and one episode. 0 evaluates the
            untrained model.
        val_every: steps between validations and checkpoints.
        optimizer: ``"adam"`` or ``"sgd"``; or ``"trpo"``, for policies.
        lr: learning rate at the start; for ``"trpo"``, the largest KL divergence of a step.
        schedule: ``"constant"``, ``"linear"`` or ``"cosine"`` decay to 0, or ``"step"``: times
            ``gamma`` at every milestone.
        weight_decay: an L2 penalty for ``"sgd"``, decoupled from it for ``"adam"`` (AdamW).
        momentum: for ``"sgd"``.
        nesterov: whether the momentum is Nesterov's.
        warmup: steps over which the learning rate rises linearly from 0, before the schedule's.
        milestones: for ``"step"``, rising fractions of all steps, between 0 and 1.
        gamma: factor at each milestone, for ``"step"``.
        clip: largest Euclidean norm of the gradient; larger ones are scaled down. No limit if None.
        patience: number of validations in a row without a new best score after which training
            ends; it does not end early if None.
        precision: ``"float32"``; ``"bfloat16"`` by autocast; or ``"auto"``: bfloat16 where a short
            trial before the first step finds it faster, as on GPUs and processors with AMX.
        device: ``"auto"`` takes the GPU where there is one; or torch's name, as ``"cuda:1"``.
        threads: number of CPU threads; torch's default if None.

    Raises:
        InputError: a value is out of its range.

    Examples:
        >>> training = Training(steps=100, lr=0.1, schedule="linear", warmup=10)
        >>> training.lr_at(9), training.lr_at(55)
        (0.1, 0.05)
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
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        decay = {
            "constant": 1.0,
            "linear": 1 - done,
            "cosine": (1 + math.cos(math.pi * done)) / 2,
            "step": self.gamma
            ** sum(step / max(1, self.steps) >= part for part in self.milestones),
        }
        return self.lr * decay[self.schedule]

    def make_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a model's weights.

        Raises:
            InputError: it is TRPO, and the model is no policy.
        """
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


class Progress:
    """Callbacks of a training; the default ignores them."""

    def begin(self, done: int, steps: int, plan: str) -> None:
        """Called before the first step.

        Args:
            done: steps made before, by a resumed run.
            steps: steps of the training.
            plan: what is trained and how, in a line.
        """

    def advance(self, done: int, steps: int) -> None:
        """Called after each step."""

    def step(self, done: int, steps: int, terms: dict[str, float]) -> None:
        """Called every `REPORT_EVERY` steps, with the mean losses since the last call."""

    def validated(self, done: int, score: float, best: float) -> None:
        """Called after a validation."""

    def note(self, line: str) -> None:
        """Called with a choice that was made, or a reason to stop, in one line."""


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

    The samples of a step depend only on the seed and the step, so an interrupted run resumes to
    the same weights. Inside `omnitraining.distributed.process_group` each process trains on a
    shard of every step.

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
    device, context = find_device(training.device), current_context()
    check_distributed(training, device, context)
    problem.check(model)
    problem.shard(context.rank, context.world_size)
    if progress is None or not context.is_main_process:
        progress = Progress()
    with cpu_threads(training.threads):
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
        with closing(Metrics(run, state["step"], silent=not context.is_main_process)) as metrics:
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
    """Whether the last validations brought no new best score, as many as patience allows."""
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


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Set the number of CPU threads of torch inside, if it is given, and restore it."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    """The error that names the first term that is not finite, its step and its samples.

    The samples can be drawn again, since they depend on the seed and the step alone.
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
