"""The EMA teacher (eq. 9): a slow copy of the whole model, backbone and heads."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

M = TypeVar("M", bound=nn.Module)


class Teacher(nn.Module, Generic[M]):
    """theta~_i = alpha theta~_{i-1} + (1 - alpha) theta_i, with theta~_0 = theta_0.

    It normalizes by the statistics of the batch it is given, as the student does: running
    statistics differ from those of a five-class episode, and the penalty would not vanish even at
    equal weights. Its running statistics are copied from the student, so that the teacher can
    also be used to predict. Dropout is off.

    Args:
        student: the model to copy; the copy is free of it and takes no gradient.
        alpha: decay, in [0, 1); 0 makes the teacher equal to the student. The student must
            keep its parameter objects from here on (move it to its device before).
    """

    def __init__(self, student: M, alpha: float = 0.99) -> None:
        super().__init__()
        self.alpha = alpha
        self.model: M = copy.deepcopy(student).requires_grad_(False)
        self._pairs: list[tuple[list[Tensor], list[Tensor]]] = [
            (list(tensors(self.model)), list(tensors(student)))
            for tensors in (nn.Module.parameters, nn.Module.buffers)
        ]

    def train(self, mode: bool = True) -> "Teacher[M]":
        super().train(False)  # dropout may sit in any module, as in attention; norms are known
        self.training = mode
        for module in self.modules():
            if isinstance(module, _NormBase):
                module.train(mode)
        return self

    @torch.no_grad()
    def update(self) -> None:
        """Move the weights towards the student's; call it after the optimizer's step."""
        (mine, theirs), (my_buffers, their_buffers) = self._pairs
        torch._foreach_lerp_(mine, theirs, 1 - self.alpha)
        if my_buffers:
            torch._foreach_copy_(my_buffers, their_buffers)
