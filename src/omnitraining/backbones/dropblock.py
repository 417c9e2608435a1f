"""DropBlock, as the ResNet-12 of MetaOptNet uses it.

G. Ghiasi, T.-Y. Lin, Q. V. Le: "DropBlock: A regularization method for convolutional networks",
NeurIPS 2018, https://arxiv.org/abs/1810.12890
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.errors import InputError


class DropBlock(nn.Module):
    """Drops square blocks of a map in training, and scales the rest to keep the mean.

    Blocks are drawn for each sample and channel. The scale is the number of positions divided by
    the number of kept positions, over the whole tensor. In a map smaller than a block, the block is
    the whole map (the authors' code raises an error).

    Args:
        rate: fraction of positions to drop, in [0, 1).
        size: side of a block, in positions.

    Attributes:
        keep: fraction of positions kept; ``1 - rate`` unless `at_step` is called.

    Raises:
        InputError: an argument is out of range.

    Shape: [..., C, H, W] -> [..., C, H, W].
    """

    def __init__(self, rate: float = 0.1, size: int = 5) -> None:
        """Start with the final rate; `at_step` makes it rise."""
        super().__init__()
        if not 0 <= rate < 1:
            raise InputError(f"rate is {rate}: it must be at least 0 and less than 1")
        if size < 1:
            raise InputError(f"size is {size}: a block must be 1 or more wide")
        self.rate, self.size = rate, size
        self.keep = 1 - rate

    def at_step(self, step: int, steps: int) -> None:
        """Lower `keep` linearly from 1 to ``1 - rate`` over the first third of training.

        MetaOptNet does so over 20 of 60 epochs, counted in forward passes. A step of Omni-Training
        has several of these, so steps are counted here.

        Args:
            step: training step, counted from 0.
            steps: length of the training.
        """
        self.keep = 1 - self.rate * min(1.0, 3 * step / steps)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., C, H, W] without the dropped blocks; unchanged in evaluation mode."""
        if not self.training or self.keep == 1:
            return x
        height, width = x.shape[-2:]
        rows, columns = min(self.size, height), min(self.size, width)
        corners = height - rows + 1, width - columns + 1  # where a block can start
        gamma = (1 - self.keep) * (height * width) / (rows * columns * corners[0] * corners[1])
        starts = torch.rand(*x.shape[:-2], *corners, device=x.device) < gamma
        # A position is dropped where any of the block-sized window before it starts a block.
        starts = F.pad(starts.float(), (columns - 1, columns - 1, rows - 1, rows - 1))
        kept = F.max_pool2d(starts, (rows, columns), stride=1) == 0
        scale = kept.numel() / kept.sum().clamp(min=1)
        return x * (kept * scale).to(x.dtype)
