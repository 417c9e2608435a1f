"""Wide residual networks, WRN-28-10 by default.

S. Zagoruyko, N. Komodakis: "Wide Residual Networks", BMVC 2016, https://arxiv.org/abs/1605.07146
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.errors import InputError


class Block(nn.Module):
    """Norm and ReLU before each of two 3x3 convolutions, dropout between them.

    Args:
        inputs: channels before the block.
        outputs: channels after it.
        stride: of the first convolution and of the shortcut.
        dropout: probability.

    Shape: [B, inputs, H, W] -> [B, outputs, H / stride, W / stride], rounded up.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        """Build the layers."""
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Sequential()
        if inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, outputs, H', W'] of maps [B, inputs, H, W]."""
        active = F.relu(self.bn1(x), inplace=True)
        hidden = F.relu(self.bn2(self.conv1(active)), inplace=True)
        hidden = self.conv2(self.dropout(hidden))
        total: Tensor = hidden + (self.shortcut(active) if len(self.shortcut) else x)
        return total


class WideResNet(nn.Module):
    """A 3x3 stem of 16 channels, three stages of wide blocks, norm, ReLU, average pooling.

    The defaults are WRN-28-10 as few-shot learning uses it: without its classification layer, on
    images of 80 to 84 pixels. Convolution weights follow N(0, sqrt(2 / fan_out)).

    Args:
        depth: convolutions on the longest path, stem and shortcuts included: 6 n + 4.
        width: factor of the channels 16, 32 and 64 of the stages.
        dropout: probability of dropout between the convolutions of a block, in [0, 1].
        channels: channels of the input images.

    Raises:
        InputError: an argument is out of range.

    Shape: [B, channels, H, W] -> [B, 64 * width].

    Example:
        >>> import torch
        >>> from omnitraining import WideResNet
        >>> WideResNet(depth=10, width=1)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 64])
    """

    def __init__(
        self, depth: int = 28, width: int = 10, dropout: float = 0.0, channels: int = 3
    ) -> None:
        """Build the stages."""
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise InputError(f"depth is {depth}: it must be 10, 16, 22, 28 or so on in steps of 6")
        if width < 1:
            raise InputError(f"width is {width}: it must be 1 or more")
        if not 0 <= dropout <= 1:
            raise InputError(f"dropout is {dropout}: it must be from 0 to 1")
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        stages, inputs = [], 16
        for index in range(3):
            outputs = 16 * width * 2**index
            stage = [
                Block(
                    inputs if first else outputs,
                    outputs,
                    stride=2 if first and index else 1,
                    dropout=dropout,
                )
                for first in (True, *[False] * ((depth - 4) // 6 - 1))
            ]
            stages.append(nn.Sequential(*stage))
            inputs = outputs
        self.layer1, self.layer2, self.layer3 = stages
        self.bn = nn.BatchNorm2d(inputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, 64 * width] of images [B, channels, H, W]."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = F.relu(self.bn(x), inplace=True)
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
