"""Vision transformers, ViT-S/16 by default.

A. Dosovitskiy et al.: "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
ICLR 2021, https://arxiv.org/abs/2010.11929
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.errors import InputError


class Attention(nn.Module):
    """Multi-head self-attention of tokens.

    Args:
        width: size D of a token.
        heads: attention heads.

    Shape: [B, N, D] -> [B, N, D].
    """

    def __init__(self, width: int, heads: int) -> None:
        """Build the two projections."""
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, D] of tokens [B, N, D]."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)  # [B, heads, N, D / heads]
        projected: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return projected


class Block(nn.Module):
    """Attention and a perceptron of four times the width, each after a norm and with a shortcut.

    `torch.nn.TransformerEncoderLayer` computes the same, but its fast path cannot always be
    differentiated in evaluation mode, as MAML needs it.

    Args:
        width: size D of a token.
        heads: attention heads.

    Shape: [B, N, D] -> [B, N, D].
    """

    def __init__(self, width: int, heads: int) -> None:
        """Build the layers."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        layers = {
            "fc1": nn.Linear(width, 4 * width),
            "act": nn.GELU(),
            "fc2": nn.Linear(4 * width, width),
        }
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, D] of tokens [B, N, D]."""
        x = x + self.attn(self.norm1(x))
        total: Tensor = x + self.mlp(self.norm2(x))
        return total


class ViT(nn.Module):
    """Patches and a class token through pre-norm blocks; the normalized token is the feature.

    The defaults are ViT-S/16: 21,665,664 parameters. Weights have timm's names: the weights
    of timm's ``vit_small_patch16_224`` fit, without the head. Positions are learned, so that the
    size of the images is fixed. Weights start from N(0, 0.02), the patch embedding from torch's
    default.

    Args:
        image_size: height and width of the input images, in pixels.
        patch: height and width of a patch, in pixels; it must divide the size.
        width: size of a token.
        depth: number of blocks.
        heads: attention heads; they must divide the width.
        channels: channels of the input images.

    Raises:
        InputError: an argument is out of range, or images have another size.

    Shape: [B, channels, image_size, image_size] -> [B, width].

    Example:
        >>> import torch
        >>> from omnitraining import ViT
        >>> vit = ViT(image_size=32, patch=8, width=16, depth=2, heads=2)
        >>> vit(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 16])
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
        """Build the blocks."""
        super().__init__()
        sizes = {"image_size": image_size, "patch": patch, "width": width, "depth": depth}
        for name, value in (sizes | {"heads": heads}).items():
            if value < 1:
                raise InputError(f"{name} is {value}: it must be 1 or more")
        if image_size % patch:
            raise InputError(f"patch is {patch}: it must divide image_size, {image_size}")
        if width % heads:
            raise InputError(f"heads is {heads}: it must divide width, {width}")
        self.image_size = image_size
        embedding = nn.Conv2d(channels, width, patch, stride=patch)
        self.patch_embed = nn.Sequential(OrderedDict(proj=embedding))
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + (image_size // patch) ** 2, width))
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, width] of images [B, channels, image_size, image_size].

        Raises:
            InputError: images have another size.
        """
        if x.shape[-2:] != (self.image_size, self.image_size):
            size = "x".join(map(str, x.shape[-2:]))
            raise InputError(f"images are {size}, but image_size is {self.image_size}")
        tokens = self.patch_embed(x).flatten(2).mT
        token = self.cls_token.expand(x.shape[0], -1, -1)  # len(x) would be fixed in an export
        tokens = torch.cat([token, tokens], 1) + self.pos_embed
        features: Tensor = self.norm(self.blocks(tokens)[:, 0])
        return features
