"""Meta-MaxUp: train on the worst of several augmentations of each task (Ni et al. 2021 [54]).

[54] R. Ni, M. Goldblum, A. Sharaf, K. Kong, T. Goldstein: "Data Augmentation for Meta-Learning",
ICML 2021, https://arxiv.org/abs/2010.07092 and its code
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnitraining.batches import Episode, MiniBatch
from omnitraining.errors import InputError
from omnitraining.limits import check_least
from omnitraining.metatraining.base import MetaTraining, WrappedMetaTraining
from omnitraining.metatraining.protonet import ProtoNet
from omnitraining.network import Network
from omnitraining.task_augmentation import AUGMENTATIONS, in_versions

POOL = (
    "query-cutmix",
    "query-erase",
    "support-erase",
    "task-rotate",
    "task-rotate+query-cutmix",
    "task-rotate+query-erase",
)
"""The pool of the authors' code."""


@dataclass(frozen=True)
class MetaMaxUp(WrappedMetaTraining):
    """Trains an algorithm on that version of each task that has the highest loss.

    min_theta E_T max_v l(theta; v(T)), over a few versions v of a task T, each by an augmentation
    that is drawn from a pool: of the query set, of the support set, or of whole classes.

    A query that CutMix pasted into has two classes; its loss is the mean of both, weighted by their
    share of the image. The maximum is over the losses of whole tasks, as the paper has it; the
    authors' code takes it query by query. A step passes all versions through the backbone, and the
    gradient is of the worst. Where several processes share a step, each takes the worst by its own
    queries.

    Args:
        algorithm: what is trained; one that trains as it predicts.
        versions: of each task (m in [54]).
        pool: augmentations that are drawn from, of query-cutmix, query-erase, support-erase and
            task-rotate, or several of them joined by "+", in this order.

    Raises:
        InputError: ``algorithm`` does not train as it predicts, ``versions`` is below 1, or an
            entry of ``pool`` is no augmentation.

    Example:
        >>> import torch
        >>> from omnitraining import Episode, MetaMaxUp, ProtoNet
        >>> algorithm = MetaMaxUp(ProtoNet(), versions=2)
        >>> labels, images = torch.tensor([[0, 1]]), torch.rand(1, 2, 3, 8, 8)
        >>> episode = Episode(images, labels, images, labels, ways=2)
        >>> prepared = algorithm.prepared(episode, torch.Generator().manual_seed(0))
        >>> prepared.query_x.shape, prepared.versions
        (torch.Size([2, 2, 3, 8, 8]), 2)
    """

    algorithm: MetaTraining = field(default_factory=ProtoNet)
    versions: int = 4
    pool: tuple[str, ...] = POOL

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least("metatraining", self, 1, "versions")
        if not self.pool:
            raise InputError("metatraining.pool is empty: name one augmentation or more")
        for entry in self.pool:
            names = entry.split("+")
            if not {*names} <= {*AUGMENTATIONS} or "query-cutmix" in names[:-1]:
                raise InputError(
                    f"metatraining.pool has {entry!r}: choose from {', '.join(AUGMENTATIONS)}, or "
                    "several joined by '+', query-cutmix last"
                )

    def prepared(self, episode: Episode, random: torch.Generator) -> Episode:
        """The tasks in several versions.

        Args:
            episode: T tasks of images.
            random: source of all randomness, on the CPU.

        Raises:
            InputError: the inputs are not images.
        """
        return in_versions(episode, self.pool, self.versions, random)

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Outputs [T, Q, O] of all versions, and the mean over tasks of the worst one's loss."""
        outputs = self.predict(network, episode)
        losses = [
            self._loss(outputs[number : number + 1], task)
            for number, task in enumerate(episode.split(1))
        ]
        worst = torch.stack(losses).unflatten(0, (episode.versions, -1)).max(0).values
        return outputs, worst.mean()

    def _loss(self, outputs: Tensor, task: Episode) -> Tensor:
        """Loss of one task, its queries of one class or two."""
        first = self.loss(outputs, task.query_y)
        if task.mixture is None:
            return first
        share = task.mixture.share[0].to(first.dtype)
        return share * first + (1 - share) * self.loss(outputs, task.mixture.labels)
