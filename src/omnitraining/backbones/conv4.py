"""Conv4: the four-block convolutional network of few-shot learning.

O. Vinyals et al.: "Matching Networks for One Shot Learning", NeurIPS 2016,
https://arxiv.org/abs/1606.04080; weights are initialized as in [13] W.-Y. Chen et al.: "A Closer
Look at Few-shot Classification", ICLR 2019, https://arxiv.org/abs/1904.04232
"""

from torch import nn

from omnitraining.errors import InputError


class Conv4(nn.Sequential):
    """Four blocks of 3x3 convolution, batch norm, 2x2 max-pooling and ReLU, flattened.

    Pooling before the ReLU gives the same function as after it (the maximum commutes with a
    monotone map) at a quarter of the memory traffic.

    Args:
        channels: channels of the input images.
        width: channels of every block; 64 is the usual choice.
        pooled_blocks: the first blocks that pool, from 0 to 4. RelationNet needs 2, to compare
            maps; [13] also omits their padding (19x19 positions at 84 pixels in place of 21x21),
            which would leave a 1x1 branch without a center tap.
        average: average the last map over positions, as RFS does (which pools in three blocks);
            otherwise it is flattened.

    Raises:
        InputError: ``pooled_blocks`` is out of range.

    Shape: [B, channels, H, W] -> [B, width * (H // 2**pooled_blocks) * (W // 2**pooled_blocks)],
    or [B, width] if ``average``.

    Example:
        >>> import torch
        >>> from omnitraining import Conv4
        >>> Conv4(width=8)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 32])
    """

    def __init__(
        self, channels: int = 3, width: int = 64, pooled_blocks: int = 4, average: bool = False
    ) -> None:
        """Build the blocks; convolution weights follow N(0, sqrt(2 / fan_out))."""
        if not 0 <= pooled_blocks <= 4:
            raise InputError(f"pooled_blocks is {pooled_blocks}: it must be from 0 to 4")
        layers: list[nn.Module] = []
        for block, inputs in enumerate((channels, width, width, width)):
            layers += [
                nn.Conv2d(inputs, width, 3, padding=1, bias=False),  # batch norm holds the bias
                nn.BatchNorm2d(width),
                nn.MaxPool2d(2) if block < pooled_blocks else nn.Identity(),
                nn.ReLU(inplace=True),
            ]
        pool = [nn.AdaptiveAvgPool2d(1)] if average else []
        super().__init__(*layers, *pool, nn.Flatten())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
