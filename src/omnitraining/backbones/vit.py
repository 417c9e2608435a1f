"""Vision transformers (Dosovitskiy et al. 2021): ViT-S/16 and its like."""

import torch
from torch import Tensor, nn

from omnitraining.errors import InputError


class ViT(nn.Module):
    """Patches and a class token through pre-norm encoder layers; the token is the feature.

    The defaults are ViT-S/16: 21,665,664 parameters. Positions are learned, so that the size of
    the images is fixed. Weights are drawn from N(0, 0.02), truncated, as in DeiT; the patch
    embedding as torch draws a convolution.

    Args:
        image_size: height and width of the input images, in pixels.
        patch: height and width of a patch, in pixels; it must divide the size.
        width: size of a token.
        depth: encoder layers.
        heads: attention heads; they must divide the width.
        channels: channels of the input images.

    Raises:
        InputError: an argument is out of range, or images have another size.

    Shape: [B, channels, image_size, image_size] -> [B, width].
    """

    def __init__(
        self,
        image_size: int = 224,
        patch: int = 16,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        channels: int = 3,
    ) -> None:
        super().__init__()
        sizes = {"image_size": image_size, "patch": patch, "width": width, "depth": depth}
        for name, value in (sizes | {"heads": heads, "channels": channels}).items():
            if value < 1:
                raise InputError(f"{name} is {value}: it must be 1 or more")
        if image_size % patch:
            raise InputError(f"patch is {patch}: it must divide image_size, {image_size}")
        if width % heads:
            raise InputError(f"heads is {heads}: it must divide width, {width}")
        self.image_size = image_size
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (image_size // patch) ** 2, width))
        layers = [
            nn.TransformerEncoderLayer(
                width,
                heads,
                4 * width,
                dropout=0.0,
                activation="gelu",
                layer_norm_eps=1e-6,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(depth)
        ]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for name, parameter in self.named_parameters():
            if name in ("token", "positions") or (name.startswith("layers") and parameter.ndim > 1):
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.startswith("layers") and name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] != (self.image_size, self.image_size):
            found = "x".join(map(str, x.shape[-2:]))
            raise InputError(f"images are {found}, but image_size is {self.image_size}")
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.positions
        features: Tensor = self.norm(self.layers(tokens)[:, 0])
        return features
