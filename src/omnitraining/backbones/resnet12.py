"""ResNet-12 with DropBlock, the wider residual network of few-shot learning [55].

[55] B. N. Oreshkin, P. Rodriguez, A. Lacoste: "TADAM: Task dependent adaptive metric for improved
few-shot learning", NeurIPS 2018, https://arxiv.org/abs/1805.10123

MetaOptNet: K. Lee, S. Maji, A. Ravichandran, S. Soatto: "Meta-Learning with Differentiable Convex
Optimization", CVPR 2019, https://arxiv.org/abs/1904.03758
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.backbones.dropblock import DropBlock

WIDTHS = (64, 160, 320, 640)


class Block(nn.Module):
    """Three 3x3 convolutions and a projected shortcut, then 2x2 max-pooling and dropout.

    The pooling comes before the last activation, which is the same function (the maximum commutes
    with a monotone map) at a quarter of the work.

    Args:
        inputs: channels before the block.
        outputs: channels after it.
        drop: dropout, or `DropBlock`.

    Shape: [B, inputs, H, W] -> [B, outputs, H // 2, W // 2].
    """

    def __init__(self, inputs: int, outputs: int, drop: nn.Module) -> None:
        """Build the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv3 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, outputs, H // 2, W // 2] of maps [B, inputs, H, W]."""
        hidden = F.leaky_relu(self.bn1(self.conv1(x)), 0.1, inplace=True)
        hidden = F.leaky_relu(self.bn2(self.conv2(hidden)), 0.1, inplace=True)
        hidden = self.bn3(self.conv3(hidden)) + self.shortcut(x)
        dropped: Tensor = self.drop(F.leaky_relu(F.max_pool2d(hidden, 2), 0.1))
        return dropped


class ResNet12(nn.Module):
    """ResNet-12: four blocks of 64, 160, 320 and 640 channels; 12,424,320 parameters.

    The paper uses "ResNet-12 with dropblocks in [55]", but the network of [55] has no DropBlock.
    This is MetaOptNet's, which is derived from [55] and has it; features are averaged over the last
    map as in later work. Convolution weights follow N(0, sqrt(2 / fan_out)).

    Args:
        channels: channels of the input images, 84 pixels wide in the paper.
        drop_rate: fraction dropped, by ordinary dropout in the first two blocks and by `DropBlock`
            in the last two.
        block_size: side of the blocks of DropBlock; 2 is usual for images of 32 pixels.
        pool: average over the last map; otherwise it is flattened, as RelationNet needs it.

    Raises:
        InputError: an argument is out of range.

    Shape: [B, channels, H, W] -> [B, 640], or [B, 640 * (H // 16) * (W // 16)] without pooling.

    Example:
        >>> import torch
        >>> from omnitraining import ResNet12
        >>> ResNet12()(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 640])
    """

    def __init__(
        self, channels: int = 3, drop_rate: float = 0.1, block_size: int = 5, pool: bool = True
    ) -> None:
        """Build the blocks."""
        super().__init__()
        self.pool = pool
        first, second, third, fourth = WIDTHS
        blocks = DropBlock(drop_rate, block_size), DropBlock(drop_rate, block_size)
        self.layer1 = Block(channels, first, nn.Dropout(drop_rate))
        self.layer2 = Block(first, second, nn.Dropout(drop_rate))
        self.layer3 = Block(second, third, blocks[0])
        self.layer4 = Block(third, fourth, blocks[1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, D] of images [B, channels, H, W]."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.flatten(F.adaptive_avg_pool2d(x, 1) if self.pool else x, 1)
