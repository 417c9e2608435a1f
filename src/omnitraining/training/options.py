"""Length, optimizer, precision and device of a training."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from omnitraining.errors import InputError
from omnitraining.limits import (
    check_least,
    check_moment,
    check_positive,
    check_proper_part,
    step_at,
)
from omnitraining.optimizers import SGD, AdamW
from omnitraining.policies.gaussian import GaussianHead
from omnitraining.policies.trpo import TRPO
from omnitraining.runs.loggers import LoggerName


@dataclass(frozen=True)
class Training:
    """Length, optimizer, schedule, precision and device of a training.

    Args:
        steps: optimizer steps, on one mini-batch and one episode each. 0 evaluates the untrained
            model.
        val_every: steps between validations and checkpoints.
        optimizer: ``"adam"`` or ``"sgd"``; or ``"trpo"``, for policies.
        lr: learning rate at the start; for ``"trpo"``, the largest KL divergence of a step.
        schedule: ``"constant"``, ``"linear"`` or ``"cosine"`` decay to 0, or ``"step"``: times
            ``gamma`` at every milestone.
        weight_decay: an L2 penalty for ``"sgd"``, decoupled from it for ``"adam"`` (AdamW).
        momentum: for ``"sgd"``.
        nesterov: whether the momentum is Nesterov's.
        warmup: steps over which the learning rate rises linearly from 0, before the schedule's.
        decay_from: step at which ``"linear"`` or ``"cosine"`` decay begins, or below 1 the fraction
            of all steps; constant before.
        milestones: for ``"step"``, rising fractions of all steps, between 0 and 1.
        gamma: factor at each milestone, for ``"step"``.
        updates_per_step: updates of the weights on the samples of a step. More than 1 are for
            policies, whose trajectories cost more than an update, with a ``clip_ratio`` in their
            algorithms (PPO).
        clip: largest Euclidean norm of the gradient; larger ones are scaled down. No limit if None.
        patience: number of validations in a row without a new best score after which training
            ends; it does not end early if None.
        precision: ``"float32"``; ``"bfloat16"`` by autocast; or ``"auto"``: bfloat16 where a short
            trial before the first step finds it faster, as on GPUs and processors with AMX.
        device: ``"auto"`` takes the GPU where there is one; or torch's name, as ``"cuda:1"``.
        threads: number of CPU threads; torch's default if None.
        loggers: experiment trackers that receive the metrics beside metrics.csv, of
            ``"tensorboard"``, ``"wandb"`` and ``"mlflow"``; TensorBoard where it is installed, if
            None.

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
    decay_from: int | float = 0
    milestones: tuple[float, ...] = (0.6, 0.8)
    gamma: float = 0.1
    updates_per_step: int = 1
    clip: float | None = None
    patience: int | None = None
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    device: str = "auto"
    threads: int | None = None
    loggers: tuple[LoggerName, ...] | None = None

    def __post_init__(self) -> None:
        check_least("training", self, 0, "steps", "weight_decay")
        check_least("training", self, 1, "val_every", "updates_per_step")
        check_least("training", self, 1, "threads", "patience")
        check_positive("training", self, "lr", "clip")
        check_proper_part("training", self, "momentum")
        if self.nesterov and not self.momentum:
            raise InputError("training.nesterov is true, but training.momentum is 0: set both")
        if self.momentum and self.optimizer != "sgd":
            raise InputError(
                f"training.momentum is {self.momentum}, but training.optimizer is "
                f"{self.optimizer!r}: only 'sgd' has it"
            )
        if self.updates_per_step > 1 and self.optimizer == "trpo":
            raise InputError(
                f"training.updates_per_step is {self.updates_per_step}, but training.optimizer is "
                "'trpo', which makes one: set it to 1, or choose 'adam' or 'sgd'"
            )
        if not 0 <= self.warmup <= self.steps:
            raise InputError(
                f"training.warmup is {self.warmup}: it must be from 0 to the "
                f"{self.steps} of training.steps"
            )
        check_moment("training", self, "decay_from")
        if step_at(self.decay_from, self.steps) > self.steps:
            raise InputError(
                f"training.decay_from is {self.decay_from}: it must be from 0 to the "
                f"{self.steps} of training.steps"
            )
        if self.decay_from and self.schedule not in ("linear", "cosine"):
            raise InputError(
                f"training.decay_from is {self.decay_from}, but training.schedule is "
                f"{self.schedule!r}: only 'linear' and 'cosine' have it"
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

    def lr_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        start = max(self.warmup, step_at(self.decay_from, self.steps))
        done = min(1.0, max(0, step - start) / max(1, self.steps - start))
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
            InputError: it is TRPO or makes several updates per step, and the model is no policy.
        """
        is_policy = any(isinstance(module, GaussianHead) for module in model.modules())
        if self.updates_per_step > 1 and not is_policy:
            raise InputError(
                f"training.updates_per_step is {self.updates_per_step}: more than 1 are for "
                "policies alone"
            )
        if self.optimizer == "sgd":
            return SGD(
                model.parameters(),
                self.lr,
                self.momentum,
                weight_decay=self.weight_decay,
                nesterov=self.nesterov,
            )
        if self.optimizer == "trpo":
            if not is_policy:
                raise InputError("training.optimizer is 'trpo', which is for policies alone")
            return TRPO(model.parameters(), self.lr)
        return AdamW(model.parameters(), self.lr, weight_decay=self.weight_decay)


def find_device(name: str, option: str = "training.device") -> torch.device:
    """The device of a name; ``"auto"`` is CUDA, else Apple's MPS, else the CPU.

    Args:
        name: as torch has it, "cuda:1" for example; or "auto".
        option: what it was given as, for the message of an error.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{option} is {name!r}, which is not usable here: {first}") from error
    if device.type == "meta":
        raise InputError(f"{option} is {name!r}, which holds no numbers: give a real one")
    return device
