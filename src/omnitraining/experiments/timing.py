"""Seconds of a training step of every row of an experiment, measured by turns in one run."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import yaml
from rich.table import Table

from omnitraining.config.run_config import instantiate
from omnitraining.experiments.jobs import Job
from omnitraining.runs.compute import multiply_adds
from omnitraining.tasks.base import Problem
from omnitraining.threads import cpu_threads
from omnitraining.training import Stepper, find_device

UNTIMED = 2
"""Steps of each row before the first one that is timed: they fill caches and choose kernels."""


@dataclass(frozen=True)
class StepCost:
    """Cost of one training step of a row.

    Attributes:
        multiply_adds: counted, as `multiply_adds` does.
        seconds: median over steps, samples, both passes, optimizer and teacher together. Where
            losses enter late (``loss.branch_at``), the mean of all kinds of steps by their number.
        precision: of the step.
        steps: of the whole training.
    """

    multiply_adds: int | None
    seconds: float
    precision: str
    steps: int


def step_costs(
    jobs: Sequence[Job], rounds: int = 10, show: Callable[[int], None] = lambda done: None
) -> list[StepCost]:
    """Costs of a training step of every job, in their order.

    No training is kept: each job has its own model, teacher and optimizer. The jobs make a few
    steps in turn, so that other load on the machine affects all of them equally.

    Args:
        jobs: whether they are trained makes no difference.
        rounds: timed steps of each.
        show: called with the number of rounds that are done.

    Raises:
        InputError: something in a configuration does not fit.
    """
    problems: dict[str, Problem] = {}
    steps = []
    for job in jobs:
        described = yaml.safe_dump(job.values["problem"], sort_keys=True)
        steps.append(_Steps(job, problems.get(described)))
        problems[described] = steps[-1].problem
    seconds: list[list[float]] = [[] for _ in jobs]
    for number in range(UNTIMED + rounds):
        for each, times in zip(steps, seconds, strict=True):
            taken = each.step(number)
            if number >= UNTIMED:
                times.append(taken)
        show(number + 1)
    return [
        StepCost(
            each.multiply_adds,
            statistics.median(times),
            each.stepper.precision,
            each.training.steps,
        )
        for each, times in zip(steps, seconds, strict=True)
    ]


def cost_table(title: str, costs: dict[str, StepCost]) -> Table:
    """Multiply-adds and seconds of a step and of the whole training; the first row is 1.

    Args:
        title: of the table.
        costs: by row.
    """
    first = next(iter(costs.values()))
    whole = first.multiply_adds * first.steps if first.multiply_adds else None
    table = Table("row", title=f"{title}: a training step, and the whole training")
    for name in ("multiply-adds", "ms", "steps", "all multiply-adds", "all minutes", "compute"):
        table.add_column(name, justify="right")
    for row, cost in costs.items():
        counted = ["-", "-", "-"]  # in reinforcement learning
        if cost.multiply_adds is not None:
            spent = cost.multiply_adds * cost.steps
            ratio = f"{spent / whole:.3f}" if whole else "-"
            counted = [f"{cost.multiply_adds / 1e9:.4g}e9", f"{spent / 1e12:.3g}e12", ratio]
        minutes = f"{cost.seconds * cost.steps / 60:.3g}"
        seconds = f"{1000 * cost.seconds:.3g}"
        table.add_row(row, counted[0], seconds, str(cost.steps), counted[1], minutes, counted[2])
    return table


class _Steps:
    """Training steps of one job."""

    def __init__(self, job: Job, problem: Problem | None) -> None:
        # The network that a run starts from changes its weights, not its cost, and may be missing.
        config = replace(instantiate(job.config), start_from=None)
        self.problem, self.training = problem or config.problem, config.training
        self.device = find_device(config.training.device)
        with cpu_threads(self.training.threads):
            model = config.build(job.trust)
            self.stepper = Stepper(model, self.problem, self.training, self.device)
            steps = self.training.steps
            self.multiply_adds = multiply_adds(model, self.problem, self.device, steps)
            self.phases = model.loss.phases(steps)
            if self.stepper.precision == "auto":
                self.stepper.choose_precision()

    def step(self, number: int) -> float:
        """Make a step, or one of each phase if losses enter late; its seconds."""
        if len(self.phases) == 1:
            return self._seconds(number)
        return sum(share * self._seconds(start) for start, share in self.phases.items())

    def _seconds(self, step: int) -> float:
        with cpu_threads(self.training.threads):
            start = time.perf_counter()
            self.stepper.step(step)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return time.perf_counter() - start
