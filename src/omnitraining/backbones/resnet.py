"""ResNet-10 and ResNet-18 as few-shot learning uses them (no classification layer).

K. He, X. Zhang, S. Ren, J. Sun: "Deep Residual Learning for Image Recognition", CVPR 2016,
https://arxiv.org/abs/1512.03385, as in [13] W.-Y. Chen et al.: "A Closer Look at Few-shot
Classification", ICLR 2019, https://arxiv.org/abs/1904.04232 and its code, CloserLookFewShot
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the channel counts differ.

    Parts have torchvision's names, so that state dicts fit both, without its classifier ``fc``.

    Args:
        inputs: channels before the block.
        outputs: channels after it.
        stride: of the first convolution and of the shortcut.

    Shape: [B, inputs, H, W] -> [B, outputs, H / stride, W / stride], rounded up.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """Build the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if inputs != outputs:
            self.downsample.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, outputs, H', W'] of maps [B, inputs, H, W]."""
        hidden = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(hidden)) + self.downsample(x), inplace=True)


class ResNet(nn.Module):
    """Stem, four stages of basic blocks (64 to 512 channels), global average pooling.

    Convolution weights follow N(0, sqrt(2 / fan_out)) as in CloserLookFewShot [13].

    Args:
        blocks: blocks of each stage: (1, 1, 1, 1) is ResNet-10, (2, 2, 2, 2) is ResNet-18.
        channels: channels of the input images.
        pool: average over the last map; otherwise it is flattened, as RelationNet needs it.

    Shape: [B, channels, H, W] -> [B, 512], or without pooling [B, 512 * h * w], where h and w are
    H / 32 and W / 32, rounded up.
    """

    def __init__(
        self, blocks: tuple[int, int, int, int], channels: int = 3, pool: bool = True
    ) -> None:
        """Build the stages."""
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        stages, inputs = [], 64
        for index, count in enumerate(blocks):
            outputs = 64 * 2**index
            stage = [
                Block(inputs if first else outputs, outputs, stride=2 if first and index else 1)
                for first in (True, *[False] * (count - 1))
            ]
            stages.append(nn.Sequential(*stage))
            inputs = outputs
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, D] of images [B, channels, H, W]."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.flatten(F.adaptive_avg_pool2d(x, 1) if self.pool else x, 1)


class ResNet10(ResNet):
    """ResNet-10: one block per stage; 4,905,792 parameters. Arguments and shapes as `ResNet`.

    Example:
        >>> import torch
        >>> from omnitraining import ResNet10
        >>> ResNet10()(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(self, channels: int = 3, pool: bool = True) -> None:
        """Build one block per stage."""
        super().__init__((1, 1, 1, 1), channels, pool)


class ResNet18(ResNet):
    """ResNet-18: two blocks per stage; 11,176,512 parameters. Arguments and shapes as `ResNet`.

    Example:
        >>> import torch
        >>> from omnitraining import ResNet18
        >>> ResNet18(pool=False)(torch.rand(2, 3, 64, 64)).shape  # flattened 2x2 maps
        torch.Size([2, 2048])
    """

    def __init__(self, channels: int = 3, pool: bool = True) -> None:
        """Build two blocks per stage."""
        super().__init__((2, 2, 2, 2), channels, pool)
