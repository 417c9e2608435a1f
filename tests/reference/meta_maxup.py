"""Meta-MaxUp over ProtoNet: every version of every task by itself, query by query."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from omnitraining.batches import Episode


def logits(embed: Callable[[Tensor], Tensor], task: Episode) -> Tensor:
    """[Q, N] of one task: cosines with class means of normalized features, times 10."""
    support = F.normalize(embed(task.support_x[0]), dim=-1)
    query = embed(task.query_x[0])
    means = [support[task.support_y[0] == n].mean(0) for n in range(task.ways)]
    return 10 * torch.stack([F.cosine_similarity(query, mean[None], dim=-1) for mean in means], 1)


def loss(
    embed: Callable[[Tensor], Tensor], versions: Sequence[Episode], mixed: Sequence[bool]
) -> Tensor:
    """Mean over tasks of the highest mean loss of a version.

    Args:
        embed: the backbone.
        versions: the same T tasks in each.
        mixed: whether queries of a version have second classes.
    """
    worst = []
    for t in range(len(versions[0].query_y)):
        means = []
        for version, twofold in zip(versions, mixed, strict=True):
            task, losses = version[t : t + 1], []
            for row, label, second in zip(
                logits(embed, task).log_softmax(-1),
                task.query_y[0].tolist(),
                task.mixture.labels[0].tolist(),
                strict=True,
            ):
                share = task.mixture.share[0].item() if twofold else 1.0
                losses.append(-share * row[label] - (1 - share) * row[second])
            means.append(torch.stack(losses).mean())
        worst.append(max(means))
    return torch.stack(worst).mean()
