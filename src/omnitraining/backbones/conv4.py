"""Conv4: the four-block convolutional network of few-shot learning."""

from torch import nn


class Conv4(nn.Sequential):
    """Four blocks of 3x3 convolution, batch norm, 2x2 max-pooling and ReLU, flattened.

    Pooling before the ReLU gives the same function as after it (the maximum commutes with a
    monotone map) at a quarter of the memory traffic.

    Args:
        channels: channels of the input images.
        width: channels of every block; 64 is the usual choice.

    Shape: [B, channels, H, W] -> [B, width * (H // 16) * (W // 16)].
    """

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        layers: list[nn.Module] = []
        for inputs in (channels, width, width, width):
            layers += [
                nn.Conv2d(inputs, width, 3, padding=1, bias=False),  # batch norm holds the bias
                nn.BatchNorm2d(width),
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, nn.Flatten())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
