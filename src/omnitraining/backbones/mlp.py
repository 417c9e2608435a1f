"""The multi-layer perceptron of the paper's regression and reinforcement learning problems."""

from itertools import pairwise

from torch import nn

from omnitraining.errors import InputError


class MLP(nn.Sequential):
    """Fully-connected layers, each followed by Tanh (paper 6.2: two layers of size 64).

    Args:
        inputs: size of the input.
        hidden: sizes of the layers.

    Raises:
        InputError: a size is not positive.

    Shape: [..., inputs] -> [..., hidden[-1]].

    Example:
        >>> import torch
        >>> from omnitraining import MLP
        >>> MLP(inputs=3, hidden=(16, 8))(torch.rand(2, 3)).shape
        torch.Size([2, 8])
    """

    def __init__(self, inputs: int = 1, hidden: tuple[int, ...] = (64, 64)) -> None:
        """Build the layers, initialized by torch's defaults."""
        sizes = (inputs, *hidden)
        if min(sizes) < 1:
            raise InputError(
                f"backbone.inputs is {inputs} and backbone.hidden {hidden}: sizes must be 1 or more"
            )
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.Tanh()]
        super().__init__(*layers)
