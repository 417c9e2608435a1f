"""A network is a backbone F and a head H; the prediction is H o F(x)."""

from torch import Tensor, nn


class Network(nn.Module):
    """Backbone and head, each usable alone.

    Args:
        backbone: F, from inputs [B, ...] to features [B, D].
        head: H, from features [B, D] to outputs [B, O].
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.backbone(x))
        return outputs


class PrecomputedFeatures(nn.Module):
    """Stands in for a backbone whose features are already computed: indices to features.

    Args:
        features: [M, D].
    """

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("features", features)
        self.features: Tensor

    def forward(self, indices: Tensor) -> Tensor:
        return self.features[indices]
