"""A network is a backbone F and a head H; its output is H o F(x)."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """A backbone and a head, each of which can be used by itself.

    Args:
        backbone: F, from inputs [B, ...] to features [B, D].
        head: H, from features [B, D] to outputs [B, O].
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        """Register both as they are."""
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, O] of inputs [B, ...]."""
        outputs: Tensor = self.head(self.backbone(x))
        return outputs


class MeanNetwork(nn.Module):
    """The mean of the outputs of several networks; each is a copy with its own weights.

    Args:
        networks: from inputs [B, ...] to outputs [B, O]; they may share weights.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        """Copy the networks."""
        super().__init__()
        self.networks = nn.ModuleList(copy.deepcopy(network) for network in networks)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, O] of inputs [B, ...]."""
        return torch.stack([network(x) for network in self.networks]).mean(0)


class PrecomputedFeatures(nn.Module):
    """In place of a backbone whose features are already computed: from indices to features.

    Args:
        features: of M samples [M, D].
    """

    def __init__(self, features: Tensor) -> None:
        """Register the features as a buffer."""
        super().__init__()
        self.register_buffer("features", features)
        self.features: Tensor

    def forward(self, indices: Tensor) -> Tensor:
        """Features [..., D] of samples by their indices [...]."""
        return self.features[indices]
