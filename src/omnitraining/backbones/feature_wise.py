"""Feature-wise transformation [79]: noise in the norms of any backbone, to train across domains."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.errors import InputError

SHORTCUTS = ("shortcut", "downsample")  # what the shortcut of a residual block is called


class FeatureWise(nn.Module):
    """A backbone whose batch norms give ``x (1 + eps softplus(gamma)) + eps' softplus(beta)``.

    In training only: eps and eps' are drawn from N(0, 1) for each channel, norm and forward pass,
    and are the same for all samples and positions. ``softplus`` is torch's with beta 100: the
    identity, but for 0.007 at 0. Gamma and beta stay as given; [79] also learns them, from several
    domains.

    Noise is added to the last batch norm of each residual block and to that of its shortcut, as
    in [79]; residual blocks are told by a child called ``shortcut`` or, as in torchvision,
    ``downsample``. In a backbone without such blocks it is added to every `BatchNorm2d`: in Conv4
    again as in [79].

    The backbone inside is an ordinary one: hooks are on its norms during a forward pass alone.
    As this module is not sequential, Omni-Training runs the layers before ``shared_until`` once
    per flow and not once for all; the path of such a layer begins with ``backbone.``.

    Args:
        backbone: makes the backbone, as its class does. (A backbone already made could not be
            drawn from the seed of an experiment, nor made twice, as Ensemble needs it.)
        gamma: standard deviation of the scale.
        beta: standard deviation of the shift.

    Raises:
        InputError: the backbone has no `BatchNorm2d`, or a deviation is negative.

    Shape: as the backbone.
    """

    def __init__(
        self, backbone: Callable[[], nn.Module], gamma: float = 0.3, beta: float = 0.5
    ) -> None:
        super().__init__()
        for name, value in (("gamma", gamma), ("beta", beta)):
            if not value >= 0:
                raise InputError(f"{name} is {value}: it must be 0 or more")
        if isinstance(backbone, nn.Module):
            raise InputError(
                f"backbone is a {type(backbone).__name__}: it must be what makes one, as a class "
                "or a function without arguments"
            )
        self.backbone = backbone()
        if not noisy_norms(self.backbone):
            raise InputError(
                f"backbone {type(self.backbone).__name__} has no BatchNorm2d for FeatureWise to "
                "transform"
            )
        self.scale, self.shift = F.softplus(torch.tensor([gamma, beta]), beta=100).tolist()

    def forward(self, x: Tensor) -> Tensor:
        norms = noisy_norms(self.backbone) if self.training else []
        hooks = [norm.register_forward_hook(self._transform) for norm in norms]
        try:
            features: Tensor = self.backbone(x)
        finally:
            for hook in hooks:
                hook.remove()
        return features

    def _transform(self, norm: nn.Module, inputs: tuple[Tensor, ...], x: Tensor) -> Tensor:
        noise = torch.randn(2, x.shape[1], 1, 1, dtype=x.dtype, device=x.device)
        return torch.addcmul(self.shift * noise[1], x, 1 + self.scale * noise[0])


def noisy_norms(backbone: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms that `FeatureWise` adds noise to."""
    in_blocks = []
    for block in backbone.modules():
        name = next((name for name in SHORTCUTS if hasattr(block, name)), None)
        if name is not None:
            shortcut = getattr(block, name)  # None in a block of torchvision that projects nothing
            in_blocks += _norms(block.children())[-1:]
            in_blocks += _norms(shortcut.modules()) if shortcut is not None else []
    return in_blocks or _norms(backbone.modules())


def _norms(modules: Iterator[nn.Module]) -> list[nn.BatchNorm2d]:
    return [module for module in modules if isinstance(module, nn.BatchNorm2d)]
