"""Small backbones of every kind that an Omni-Net must convert, with an input for each."""

import torch
from torch import Tensor, nn

from omnitraining.backbones import MLP, Conv4
from omnitraining.backbones.resnet import Block


class TinyViT(nn.Module):
    """Patches, class token, positions and one encoder layer."""

    def __init__(self, dim: int = 8, norm_first: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, 5, dim))
        self.encoder = nn.TransformerEncoderLayer(
            dim, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.positions
        return self.encoder(tokens)[:, 0]


class Words(nn.Module):
    """An embedding table, a layer that is applied twice, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6)
        self.twice = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.twice(torch.tanh(self.twice(self.table(x).mean(1)))))


class OddAttention(nn.Module):
    """Attention whose keys and values have their own sizes, and added key and value biases."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(
            8, 2, kdim=4, vdim=4, add_bias_kv=True, batch_first=True
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x[..., :4], x[..., 4:], need_weights=False)[0].mean(1)


def _convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.PReLU(4),
        nn.Conv2d(4, 6, (1, 5), stride=2, padding=(0, 2), groups=2, bias=False),
        nn.InstanceNorm2d(6, affine=False, track_running_stats=True),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


ZOO = {
    "mlp": (lambda: MLP(3, (5, 4)), lambda: torch.randn(6, 3)),
    "single layer": (lambda: nn.Linear(3, 4), lambda: torch.randn(6, 3)),
    "convnet": (_convnet, lambda: torch.randn(6, 3, 8, 8)),
    "conv4": (lambda: Conv4(1, 4), lambda: torch.randn(6, 1, 16, 16)),
    "residual": (
        lambda: nn.Sequential(Block(1, 4, 1), Block(4, 4, 1), Block(4, 6, 2), nn.Flatten()),
        lambda: torch.randn(3, 1, 6, 6),
    ),
    "vit": (TinyViT, lambda: torch.randn(6, 3, 8, 8)),
    "pre-norm vit": (lambda: TinyViT(norm_first=True), lambda: torch.randn(6, 3, 8, 8)),
    "words": (Words, lambda: torch.randint(10, (6, 4))),
    "odd attention": (OddAttention, lambda: torch.randn(6, 5, 8)),
}
