"""What one training step sees: a mini-batch for pre-training, an episode for meta-training."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MiniBatch:
    """Labelled samples drawn independently from the training distribution (the paper's B).

    Attributes:
        x: inputs [B, ...].
        y: targets; class indices [B], or values [B, D] in regression.
    """

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Episode:
    """T tasks side by side, each with a support set S and a query set Q.

    In classification the labels of a task are 0..ways-1, and S and Q are class-major. At test time
    ``support_x`` and ``query_x`` may hold indices of samples whose features are known already.

    Attributes:
        support_x: inputs [T, S, ...].
        support_y: labels [T, S], or values [T, S, D].
        query_x: inputs [T, Q, ...].
        query_y: labels [T, Q], or values [T, Q, D].
        ways: classes of a task; 0 where the targets are values.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    ways: int = 0

    def __getitem__(self, tasks: slice) -> "Episode":
        """Some of the tasks."""
        return Episode(
            self.support_x[tasks],
            self.support_y[tasks],
            self.query_x[tasks],
            self.query_y[tasks],
            self.ways,
        )
