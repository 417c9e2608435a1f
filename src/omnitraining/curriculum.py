"""Training tasks that depend on how the model answered earlier ones."""

from abc import abstractmethod

from torch import Tensor, nn

from omnitraining.batches import Episode


class Curriculum(nn.Module):
    """Chooses the classes of the tasks of a training step, by the results of earlier steps.

    It is a module of `Model`, so that its buffers are in every checkpoint. All its state must be in
    buffers, so that runs can resume.
    """

    @abstractmethod
    def classes(self, step: int) -> Tensor | None:
        """Classes of training that the tasks of a step are drawn from, [M] on the CPU.

        Args:
            step: counted from 0.

        Returns:
            Their indices in any order; None for all classes.
        """

    @abstractmethod
    def observe(self, step: int, outputs: Tensor, episode: Episode) -> None:
        """Record the outputs of a training step, before the update.

        Args:
            step: counted from 0.
            outputs: of the queries in this process's shard [T, Q, N].
            episode: the tasks of the queries.
        """
