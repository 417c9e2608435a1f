"""A problem without data, as it is stored in the file of a learner."""

import torch
from torch import Tensor

from omnitraining.batches import StepData
from omnitraining.errors import InputError
from omnitraining.evaluation import Evaluation, Inference
from omnitraining.model import Model
from omnitraining.tasks.base import Problem


class Blueprint(Problem):
    """A problem without data: the sizes that decide the architecture of a model.

    Args:
        shape: shape of one input, without the batch.
        pre_outputs: outputs of the pre-training head.
        meta_outputs: outputs of the meta-training head.
        one_joint_head: whether the joint-flow has one head for both kinds of training.
    """

    def __init__(
        self, shape: tuple[int, ...], pre_outputs: int, meta_outputs: int, one_joint_head: bool
    ) -> None:
        """Keep the sizes."""
        self.shape = shape
        self.pre_outputs, self.meta_outputs = pre_outputs, meta_outputs
        self.one_joint_head = one_joint_head

    def example(self) -> Tensor:
        """Two inputs of zeros, [2, ...]."""
        return torch.zeros(2, *self.shape)

    def to(self, device: torch.device) -> None:
        """Do nothing: there is no data."""

    def with_test_shots(self, shots: tuple[int, ...]) -> Problem:
        """Raise InputError, as all methods that need data."""
        raise self._no_data()

    def samples(self, step: int, random: torch.Generator, model: Model) -> StepData:
        """Raise InputError: there is no data."""
        raise self._no_data()

    def validation_scores(self, model: Model, inference: Inference) -> dict[str, float]:
        """Raise InputError: there is no data."""
        raise self._no_data()

    def evaluate(self, model: Model, inference: Inference, tasks: int) -> Evaluation:
        """Raise InputError: there is no data."""
        raise self._no_data()

    def _no_data(self) -> InputError:
        return InputError("a saved learner holds no data, so it cannot be trained or evaluated")


BLUEPRINT = f"{Blueprint.__module__}.{Blueprint.__qualname__}"
FORMERLY = "omnitraining.learner.trained.Blueprint"
"""Path of `Blueprint` in files of version 0.1."""
