"""Multiply-adds of a training step, to compare methods at equal compute.

The number of steps does not measure compute: a step of Omni-Training passes its samples through
more networks than a step of a baseline.
"""

import copy
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from omnitraining.batches import StepData
from omnitraining.model import Model
from omnitraining.tasks.base import Problem, Supervised
from omnitraining.teacher import Teacher


def multiply_adds(
    model: Model,
    problem: Problem,
    device: torch.device = torch.device("cpu"),  # noqa: B008
    steps: int = 0,
) -> int | None:
    """Multiply-adds of convolutions and matrix products in a training step, both passes.

    The teacher's forward pass, if it is used, and the inner loop of MAML count. Norms, activations
    and the augmentation do not: they are about 1 % of a convolutional step.

    Args:
        model: to be trained; a copy makes the step.
        problem: source of the samples.
        device: of the training.
        steps: of the training, where losses enter late (``loss.branch_at``, ``loss.meta_at``): the
            count is then the mean over all steps.

    Returns:
        The count, the mean over the sizes that a step may have (numbers of shots that are drawn);
        or None in reinforcement learning, where the cost is in the environment.
    """
    if not isinstance(problem, Supervised):
        return None
    problem.to(device)
    tried = copy.deepcopy(model).to(device).train()
    tried.loss = tried.loss.in_steps(steps)
    teacher = Teacher(tried, tried.loss.ema_decay)
    tried.curriculum = None  # it sums over all processes, but only the main one runs this
    late = tried.loss.warmup  # the first step at which lambda has its full weight

    def count(samples: StepData, step: int) -> int:
        with torch.random.fork_rng(), _Counter() as counter:
            terms = tried(samples.batch, samples.episode, teacher.model, step, samples.joint)
            terms["total"].backward()
        operations: int = counter.operations
        return operations // 2

    phases = tried.loss.phases(steps)
    last = max(phases)

    def count_phase(sized: Supervised, start: int) -> int:
        """A step of the phase that begins at ``start``, with the samples that are drawn in it."""
        samples = sized.samples(start, torch.Generator().manual_seed(0), tried)
        return count(samples, max(start, late) if start == last else start)

    counts = [
        sum(share * count_phase(sized, start) for start, share in phases.items())
        for sized in problem.sizes_of_steps
    ]
    return round(sum(counts) / len(counts))


class _Counter(TorchDispatchMode):
    """Sums torch's own operation counts, a multiplication and an addition each being one.

    torch's FlopCounterMode counts per module, by hooks that fail in the inner loop of MAML, which
    differentiates within the forward pass.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch would import its compiler, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.operations += int(count(*args, **(kwargs or {}), out_val=made))
        return made
