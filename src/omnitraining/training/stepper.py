"""One training step: samples, losses, the optimizer's update and the teacher's."""

import copy
import math
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from omnitraining.batches import StepData
from omnitraining.distributed import DistributedContext
from omnitraining.model import Model
from omnitraining.policies.trpo import TRPO
from omnitraining.tasks.base import Problem
from omnitraining.teacher import Teacher
from omnitraining.training.options import Training

Terms = dict[str, Tensor]

GRADIENT = "gradient"
"""Name of the gradient's greatest component, beside the names of loss terms."""


class GradientStep:
    """Updates by an optimizer of torch.

    Args:
        optimizer: with all weights in its groups.
        clip: largest Euclidean norm of the gradient, which is scaled down to it; no limit if None.
        updates: on the same samples.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, clip: float | None = None, updates: int = 1
    ) -> None:
        """Keep the optimizer."""
        self.optimizer, self.clip, self.updates = optimizer, clip, updates

    def __call__(self, losses: Callable[[], Terms], outputs: Callable[[], Terms]) -> Terms:
        """Make the updates; returns the loss terms before them, and `GRADIENT` of all."""
        terms = [self._update(losses) for _ in range(self.updates)]
        return terms[0] | {GRADIENT: torch.stack([each[GRADIENT] for each in terms]).max()}

    def _update(self, losses: Callable[[], Terms]) -> Terms:
        terms = losses()
        self.optimizer.zero_grad()
        terms["total"].backward()
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in weights if p.grad is not None]
        terms[GRADIENT] = get_total_norm(gradients, math.inf)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(weights, self.clip)
        self.optimizer.step()
        return terms


class TrustRegionStep:
    """An update by TRPO, whose line search computes the losses several times.

    Args:
        optimizer: with the weights of all policies.
    """

    def __init__(self, optimizer: TRPO) -> None:
        """Keep the optimizer."""
        self.optimizer = optimizer

    def __call__(self, losses: Callable[[], Terms], outputs: Callable[[], Terms]) -> Terms:
        """Make the update; returns the loss terms before it."""
        terms = losses()
        self.optimizer.step(terms["total"], lambda: losses()["total"], outputs)
        return terms


@runtime_checkable
class Scheduled(Protocol):
    """A module that changes in the course of training, as `DropBlock` does."""

    def at_step(self, step: int, steps: int) -> None:
        """Called before each step; the state must depend on nothing else, for runs to resume.

        Args:
            step: the next step, counted from 0.
            steps: number of steps of the training.
        """


class Stepper:
    """Training steps of a model: prepares it, its teacher and its optimizer, and updates them.

    Args:
        model: changed in place.
        problem: source of the samples; moved to the device.
        training: optimizer, schedule and precision.
        device: to train on.
        context: rank and number of processes.

    Attributes:
        model: as given, in training mode, with channels last in memory if inputs are images.
        teacher: its exponential moving average.
        optimizer: of the model's weights.
        precision: "float32" or "bfloat16"; "auto" until `choose_precision` is called.
    """

    def __init__(
        self,
        model: Model,
        problem: Problem,
        training: Training,
        device: torch.device,
        context: DistributedContext = DistributedContext(),  # noqa: B008
    ) -> None:
        """Move model and problem to the device, and make teacher and optimizer."""
        self.model, self.problem, self.training = model, problem, training
        self.device, self.context = device, context
        model.loss = model.loss.in_steps(training.steps)
        problem.to(device)
        model.to(device)
        if problem.example().dim() == 4:
            # Twice as fast for convolutions on a CPU. torch's own signature lacks the argument.
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teacher = Teacher(model, model.loss.ema_decay)
        self.optimizer = training.make_optimizer(model)
        self._step: GradientStep | TrustRegionStep = (
            TrustRegionStep(self.optimizer)
            if isinstance(self.optimizer, TRPO)
            else GradientStep(self.optimizer, training.clip, training.updates_per_step)
        )
        self._student = context.wrap_ddp(
            model, same_weights=len(model.loss.phases(training.steps)) == 1
        )
        self._scheduled = [module for module in model.modules() if isinstance(module, Scheduled)]
        self.precision: str = training.precision
        self.train_mode()

    def train_mode(self) -> None:
        """Put model and teacher into training mode, as after a validation."""
        self.model.train()
        self.teacher.train()

    def choose_precision(self) -> str:
        """Replace the precision "auto" by the faster one; returns the reason in words."""
        self.precision, reason = faster_precision(self.model, self.problem, self.device)
        return reason

    def step(self, step: int, seed: int = 0) -> Terms:
        """Make a step: `samples`, and `update` on them."""
        return self.update(self.samples(step, seed), step)

    def samples(self, step: int, seed: int = 0) -> StepData:
        """StepData of a step, after everything random or scheduled is set to that step.

        Args:
            step: counted from 0.
            seed: of the training; the samples depend on it, the step and, where policies act or a
                curriculum chooses classes, the model.
        """
        seed_of_step = seed * 1_000_003 + step
        random = torch.Generator().manual_seed(seed_of_step)
        torch.manual_seed(self.context.rank_seed(seed_of_step))  # dropout and the like
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.lr_at(step)
        for module in self._scheduled:
            module.at_step(step, self.training.steps)
        return self.problem.samples(step, random, self.model)

    def update(self, samples: StepData, step: int) -> Terms:
        """Update model and teacher.

        Args:
            samples: of the step.
            step: counted from 0.

        Returns:
            The loss terms before the update and, where the optimizer follows it, `GRADIENT`.
        """
        parts, joint = (samples.batch, samples.episode), samples.joint

        def losses() -> Terms:
            low = self.precision == "bfloat16"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
                terms: Terms = self._student(*parts, self.teacher.model, step, joint)
            return terms

        terms = self._step(losses, lambda: self.model.outputs(*parts, joint, step))
        if step < self.model.loss.branch_at:
            self.model.copy_joint_flow()
        self.teacher.update()
        return {name: term.detach() for name, term in terms.items()}


TRIAL_STEPS = 3
"""Timed steps of each precision, after one that is not timed."""

WORTHWHILE = 1.1
"""bfloat16 is chosen if it is this many times as fast as float32."""


def faster_precision(model: Model, problem: Problem, device: torch.device) -> tuple[str, str]:
    """The precision in which a step takes the least time on this machine, and the reason in words.

    A copy of the model makes steps on the samples of step 0 in alternating precisions; the model
    and the random numbers of the run do not change.

    Args:
        model: to be trained, on the device.
        problem: source of its samples.
        device: of both.
    """
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "float32", "this GPU has no bfloat16"
    trial = copy.deepcopy(model).train()
    step = model.loss.all_entered_at
    samples = problem.samples(step, torch.Generator().manual_seed(0), trial)
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    with torch.random.fork_rng():
        for turn in range(TRIAL_STEPS + 1):
            for precision, times in seconds.items():
                start = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                    terms = trial(samples.batch, samples.episode, joint=samples.joint)
                terms["total"].backward()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if turn:
                    times.append(time.perf_counter() - start)
                if precision == "bfloat16" and not terms["total"].isfinite():
                    return "float32", "the loss is not finite in bfloat16"
    ratio = min(seconds["float32"]) / min(seconds["bfloat16"])
    reason = f"a step in bfloat16 is {ratio:.2f} times as fast as in float32 here"
    return ("bfloat16" if ratio >= WORTHWHILE else "float32"), reason
