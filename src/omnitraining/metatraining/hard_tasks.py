"""Hard tasks: more training on the classes that were answered worst (Sun et al. 2019 [70]).

[70] Q. Sun, Y. Liu, T.-S. Chua, B. Schiele: "Meta-Transfer Learning for Few-Shot Learning", CVPR
2019, https://arxiv.org/abs/1812.02391
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnitraining.batches import Episode, MiniBatch
from omnitraining.curriculum import Curriculum
from omnitraining.distributed import current_context
from omnitraining.errors import InputError
from omnitraining.limits import check_least
from omnitraining.metatraining.base import MetaTraining, WrappedMetaTraining
from omnitraining.metatraining.protonet import ProtoNet
from omnitraining.network import Network


class FailureClasses(Curriculum):
    """Collects the worst class of each task in some steps, and gives them to the steps that follow.

    Args:
        classes: of training, C.
        steps: that classes are collected in.
        hard_steps: that follow them; then all begins again.

    Attributes:
        failed: whether each class was the worst of a task in the present round, [C].
    """

    def __init__(self, classes: int, steps: int, hard_steps: int) -> None:
        """Start with no classes."""
        super().__init__()
        self.steps, self.hard_steps = steps, hard_steps
        self.register_buffer("failed", torch.zeros(classes, dtype=torch.bool))
        self.failed: Tensor

    def classes(self, step: int) -> Tensor | None:
        """The collected classes, or None where they are still being collected."""
        if self._place(step) < self.steps:
            return None
        return self.failed.nonzero().flatten().cpu()

    @torch.no_grad()
    def observe(self, step: int, outputs: Tensor, episode: Episode) -> None:
        """Collect the classes with the fewest right answers, by all processes of the training.

        Raises:
            InputError: the episode does not state its training classes.
        """
        place = self._place(step)
        if place >= self.steps:
            return
        if place == 0:
            self.failed.zero_()
        right = (outputs.argmax(-1) == episode.query_y).float()  # [T, Q]
        counts = right.new_zeros(len(right), episode.ways).scatter_add(1, episode.query_y, right)
        # Queries are equally many of each class, so that counts compare as accuracies do.
        worst = current_context().all_reduce_sum(counts).argmin(1, keepdim=True)
        self.failed[episode.training_classes(worst)] = True

    def _place(self, step: int) -> int:
        """Where a step is in its round, from 0."""
        return step % (self.steps + self.hard_steps)


@dataclass(frozen=True)
class HardTasks(WrappedMetaTraining):
    """Trains an algorithm on hard tasks after every few steps: the HT meta-batch of [70].

    In each task of ``steps`` steps, the class of the lowest accuracy is its failure class
    (section 4.3 of [70]). The tasks of the ``hard_steps`` that follow are drawn from these classes
    alone, with new samples of them, which [70] found better than the same samples again. Where the
    failure classes are fewer than the ways of a task, or of another domain, other classes are drawn
    too. If several classes have the lowest accuracy, the first in the task is taken, whose classes
    are in random order. With ``protocol.tasks`` of 1, every task has its own update, as in [70].
    Accuracies are of the meta-flow, or of the joint-flow where there is none.

    Meta-transfer learning (MTL) is this over `ANIL`, on the backbone `ScaleShift`. How many tasks a
    meta-batch has could not be found in [70], whose published code has no hard tasks; here there
    are as many hard tasks as others.

    Args:
        algorithm: what is trained; any but `LearnedFT` and `MetaMaxUp`, in classification.
        steps: in which failure classes are collected.
        hard_steps: on tasks of these classes, after them.

    Raises:
        InputError: ``algorithm`` makes its own tasks or is not for classification, or a number is
            below 1.

    Example:
        >>> import torch
        >>> from omnitraining import ANIL, Episode, HardTasks
        >>> curriculum = HardTasks(ANIL(), steps=1, hard_steps=1).curriculum(classes=10)
        >>> labels, classes = torch.tensor([[0, 1, 2]]), torch.tensor([[7, 2, 9]])
        >>> task = Episode(torch.rand(1, 3, 4), labels, torch.rand(1, 3, 4), labels, 3, classes)
        >>> outputs = torch.tensor([[[1.0, 0, 0], [0, 0, 1.0], [0, 0, 1.0]]])
        >>> curriculum.observe(0, outputs, task)  # the second class is taken for the third
        >>> curriculum.classes(0), curriculum.classes(1)
        (None, tensor([2]))
    """

    algorithm: MetaTraining = field(default_factory=ProtoNet)
    steps: int = 10
    hard_steps: int = 10

    def __post_init__(self) -> None:
        name = type(self.algorithm).__name__
        if isinstance(self.algorithm, WrappedMetaTraining) or self.algorithm.domains > 1:
            raise InputError(
                f"metatraining.algorithm is {name}, which chooses or changes its own tasks: "
                "HardTasks takes algorithms over no other, as ANIL or ProtoNet"
            )
        if self.algorithm.task not in (None, "classification"):
            raise InputError(
                f"metatraining.algorithm is {name} for {self.algorithm.task}: HardTasks is for "
                "classification, whose tasks have classes"
            )
        check_least("metatraining", self, 1, "steps", "hard_steps")

    @property
    def needs_batch(self) -> bool:
        """As in `algorithm`."""
        return self.algorithm.needs_batch

    def curriculum(self, classes: int) -> Curriculum:
        """The failure classes of a training on ``classes`` classes."""
        return FailureClasses(classes, self.steps, self.hard_steps)

    def prepared(self, episode: Episode, random: torch.Generator) -> Episode:
        """As in `algorithm`."""
        return self.algorithm.prepared(episode, random)

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """As in `algorithm`."""
        return self.algorithm.outputs_and_loss(network, episode, batch)
