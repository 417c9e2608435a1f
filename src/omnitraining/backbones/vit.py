"""Vision transformers (Dosovitskiy et al. 2021): ViT-S/16 and its like."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.errors import InputError


class Attention(nn.Module):
    """Self-attention of tokens [B, N, D], all heads side by side."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)  # [B, heads, N, D / heads]
        projected: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return projected


class Block(nn.Module):
    """Attention and a perceptron of four times the width, each behind a norm and beside a skip.

    `torch.nn.TransformerEncoderLayer` computes the same, but by code that torch cannot always
    differentiate in evaluation mode, as MAML does.
    """

    def __init__(self, width: int, heads: int) -> None:
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
        x = x + self.attn(self.norm1(x))
        total: Tensor = x + self.mlp(self.norm2(x))
        return total


class ViT(nn.Module):
    """Patches and a class token through pre-norm blocks; the token, normed, is the feature.

    The defaults are ViT-S/16: 21,665,664 parameters. Weights have timm's names, so that those of
    its ``vit_small_patch16_224``, less the head, fit. Positions are learned, so that the size of
    the images is fixed. New weights are drawn from N(0, 0.02), the patch embedding as torch draws
    a convolution.

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
        if x.shape[-2:] != (self.image_size, self.image_size):
            found = "x".join(map(str, x.shape[-2:]))
            raise InputError(f"images are {found}, but image_size is {self.image_size}")
        tokens = self.patch_embed(x).flatten(2).mT
        token = self.cls_token.expand(x.shape[0], -1, -1)  # len(x) would be fixed in an export
        tokens = torch.cat([token, tokens], 1) + self.pos_embed
        features: Tensor = self.norm(self.blocks(tokens)[:, 0])
        return features
