"""The EMA teacher (eq. 9): an exponential moving average of the model, backbone and heads.

As the mean teacher of A. Tarvainen, H. Valpola, "Mean teachers are better role models", NeurIPS
2017, https://arxiv.org/abs/1703.01780
"""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

M = TypeVar("M", bound=nn.Module)


class Teacher(nn.Module, Generic[M]):
    """theta~_i = alpha theta~_{i-1} + (1 - alpha) theta_i, with theta~_0 = theta_0 (eq. 9).

    In training its batch norms use the statistics of the batch, as the student's do: running
    statistics differ from the statistics of a five-class episode, and the self-distillation loss
    would not vanish even at equal weights. Its running statistics are copied from the student, so
    that the teacher can also predict. Dropout is off.

    Args:
        student: the model to average. Move it to its device before: it must keep its parameter
            objects from here on.
        alpha: decay, in [0, 1); 0 makes the teacher equal to the student.

    Attributes:
        model: a copy of the student with the averaged weights, which take no gradient.

    Example:
        >>> import torch
        >>> from omnitraining import Teacher
        >>> student = torch.nn.Linear(1, 1)
        >>> teacher = Teacher(student, alpha=0.9)
        >>> _ = torch.nn.init.ones_(student.bias), torch.nn.init.zeros_(teacher.model.bias)
        >>> teacher.update()
        >>> teacher.model.bias
        Parameter containing:
        tensor([0.1000])
    """

    def __init__(self, student: M, alpha: float = 0.99) -> None:
        """Copy the student."""
        super().__init__()
        self.alpha = alpha
        self.model: M = copy.deepcopy(student).requires_grad_(False)
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = [
            (list(tensors(self.model)), list(tensors(student)))
            for tensors in (nn.Module.parameters, nn.Module.buffers)
        ]

    def train(self, mode: bool = True) -> "Teacher[M]":
        """Put the norms alone in training mode: dropout may be in any module, as in attention."""
        super().train(False)
        self.training = mode
        for module in self.modules():
            if isinstance(module, _NormBase):
                module.train(mode)
        return self

    @torch.no_grad()
    def update(self) -> None:
        """Move the weights towards the student's (eq. 9); call it after the optimizer's step."""
        (mine, theirs), (my_buffers, their_buffers) = self._pairs
        torch._foreach_lerp_(mine, theirs, 1 - self.alpha)
        if my_buffers:
            torch._foreach_copy_(my_buffers, their_buffers)
