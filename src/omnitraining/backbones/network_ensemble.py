"""Several networks of one architecture side by side, as one backbone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from omnitraining.backbones.frozen import made_by
from omnitraining.batches import channels_last
from omnitraining.errors import InputError


class NetworkEnsemble(nn.Module):
    """Features of all networks, one after the other: [B, K D] of K networks with D features each.

    In training on mini-batches each network can get its own augmentation of every image, so that
    the networks differ more: inputs are then [B, K, C, H, W], which a problem of classification
    draws (see `views`). With `Robust` as pre-training it is the ensemble of Dvornik et al. (2019).

    Args:
        backbone: class or function that makes a network.
        networks: K.
        own_views: whether each network gets its own augmentation in training on mini-batches.

    Raises:
        InputError: ``networks`` is below 1.

    Shape: images [B, C, H, W], or [B, K, C, H, W] with network k's images at k, to [B, K D].

    Example:
        >>> import torch
        >>> from omnitraining import Conv4, NetworkEnsemble
        >>> backbone = NetworkEnsemble(lambda: Conv4(width=8), networks=3)
        >>> backbone(torch.rand(2, 3, 32, 32)).shape, backbone(torch.rand(2, 3, 3, 32, 32)).shape
        (torch.Size([2, 96]), torch.Size([2, 96]))
    """

    def __init__(
        self, backbone: Callable[[], nn.Module], networks: int = 20, own_views: bool = True
    ) -> None:
        """Make the networks, each with its own random weights."""
        super().__init__()
        if networks < 1:
            raise InputError(f"backbone.networks is {networks}: it must be 1 or more")
        self.networks = nn.ModuleList(made_by(backbone) for _ in range(networks))
        self.own_views = own_views

    @property
    def views(self) -> int:
        """Augmentations of each sample of a mini-batch that it takes; 1 if networks share one."""
        return len(self.networks) if self.own_views else 1

    def forward(self, x: Tensor) -> Tensor:
        """Features of all networks."""
        seen = x.unbind(1) if self.own_views and x.dim() == 5 else [x] * len(self.networks)
        features = [
            network(channels_last(view)) for network, view in zip(self.networks, seen, strict=True)
        ]
        return torch.cat(features, 1)
