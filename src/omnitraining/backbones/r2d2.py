"""The network of R2-D2 and LR-D2.

L. Bertinetto, J. F. Henriques, P. H. S. Torr, A. Vedaldi: "Meta-learning with differentiable
closed-form solvers", ICLR 2019, https://arxiv.org/abs/1805.08136
"""

import torch
from torch import Tensor, nn

from omnitraining.errors import InputError


class R2D2Net(nn.Module):
    """Four blocks of 3x3 convolution, batch norm, 2x2 max-pooling and leaky ReLU.

    The last block pools with stride 1; the third and the fourth block have dropout. Features are
    the flattened maps of these two, the third pooled once more with stride 1.

    Args:
        channels: channels of the input images.
        widths: channels of the four blocks; the authors' smaller network has 64 in all.
        dropout: probability of dropout in the last two blocks; the authors take 0.4 on CIFAR-FS
            and 0.1 on mini-ImageNet.

    Raises:
        InputError: there are not four widths, or the probability is not in [0, 1).

    Shape: [B, channels, H, W] -> [B, (widths[2] + widths[3]) * (H // 8 - 1) * (W // 8 - 1)].

    Example:
        >>> import torch
        >>> from omnitraining import R2D2Net
        >>> R2D2Net(widths=(4, 4, 8, 8))(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 144])
    """

    def __init__(
        self,
        channels: int = 3,
        widths: tuple[int, ...] = (96, 192, 384, 512),
        dropout: float = 0.1,
    ) -> None:
        """Build the blocks, initialized by torch's defaults."""
        super().__init__()
        if len(widths) != 4 or min(widths) < 1:
            raise InputError(f"widths is {widths}: it must be four numbers of 1 or more")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}: it must be at least 0 and less than 1")
        inputs = (channels, *widths[:3])
        self.block1 = _block(inputs[0], widths[0], stride=2)
        self.block2 = _block(inputs[1], widths[1], stride=2)
        self.block3 = _block(inputs[2], widths[2], stride=2, dropout=dropout)
        self.block4 = _block(inputs[3], widths[3], stride=1, dropout=dropout)
        self.pool = nn.MaxPool2d(2, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, D] of images [B, channels, H, W]."""
        third = self.block3(self.block2(self.block1(x)))
        fourth = self.block4(third)
        return torch.cat([self.pool(third).flatten(1), fourth.flatten(1)], 1)


def _block(inputs: int, outputs: int, stride: int, dropout: float = 0.0) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),  # batch norm holds the bias
        nn.BatchNorm2d(outputs),
        nn.MaxPool2d(2, stride=stride),
        nn.LeakyReLU(0.1, inplace=True),
    ]
    return nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))
