"""ResNet-18*: as many parameters as the Omni-Net of ResNet-18, but one flow (Table 7)."""

from typing import cast

import torch
from torch import Tensor, nn

from omnitraining.backbones.resnet import Block, ResNet18


class ThreeConvolutions(nn.Module):
    """The sum of a convolution and two 1x1 convolutions of its stride, each with a batch norm.

    Args:
        convolution: of any odd kernel size, padded by half of it.
        norm: its batch norm.

    Shape: as the convolution.
    """

    def __init__(self, convolution: nn.Conv2d, norm: nn.Module) -> None:
        """Add the two 1x1 convolutions; weights follow N(0, sqrt(2 / fan_out))."""
        super().__init__()
        self.parts = nn.ModuleList([nn.Sequential(convolution, norm)])
        for _ in range(2):
            inputs, outputs = convolution.in_channels, convolution.out_channels
            stride = convolution.stride[0]
            pointwise = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            nn.init.kaiming_normal_(pointwise.weight, mode="fan_out", nonlinearity="relu")
            self.parts.append(nn.Sequential(pointwise, nn.BatchNorm2d(outputs)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, C', H', W'] of maps [B, C, H, W], as the convolution."""
        return torch.stack([part(x) for part in self.parts]).sum(0)


class ParallelResNet18(ResNet18):
    """ResNet-18 with two 1x1 convolutions beside each convolution; 13,981,376 parameters.

    The paper adds "the same parameters" as the branches of its Omni-Net and reports 13.98M. The
    convolutions alone make 13,962,176; with a norm for each, as an Omni-Net has one for each flow,
    the number is exactly that of the Omni-Net. Arguments and shapes as `ResNet18`.
    """

    def __init__(self, channels: int = 3, pool: bool = True) -> None:
        """Build ResNet-18 and replace its convolutions and norms."""
        super().__init__(channels, pool)
        _widen(self, "conv1", "bn1")
        for block in [module for module in self.modules() if isinstance(module, Block)]:
            _widen(block, "conv1", "bn1")
            _widen(block, "conv2", "bn2")
            if len(block.downsample):
                _widen(block.downsample, "0", "1")


def _widen(module: nn.Module, convolution: str, norm: str) -> None:
    """Replace a convolution and its norm by three convolutions with norms."""
    layer = cast(nn.Conv2d, module.get_submodule(convolution))
    module.register_module(convolution, ThreeConvolutions(layer, module.get_submodule(norm)))
    module.register_module(norm, nn.Identity())
