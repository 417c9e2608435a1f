"""Feature-wise transformation [79]: noise in the norms of any backbone, to train across domains.

[79] H.-Y. Tseng, H.-Y. Lee, J.-B. Huang, M.-H. Yang: "Cross-Domain Few-Shot Classification via
Learned Feature-Wise Transformation", ICLR 2020, https://arxiv.org/abs/2001.08735
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.backbones.frozen import made_by
from omnitraining.errors import InputError

SHORTCUTS = ("shortcut", "downsample")  # names of the shortcut of a residual block


class FeatureWise(nn.Module):
    """A backbone whose batch norms return ``x (1 + eps softplus(gamma)) + eps' softplus(beta)``.

    In training only: eps and eps' are drawn from N(0, 1) for each channel, norm and forward pass,
    and are the same for all samples and positions. ``softplus`` is torch's with beta 100: the
    identity, but for 0.007 at 0. Gamma and beta are constant, or parameters of every channel, which
    `LearnedFT` trains on several domains as [79] does. (Another algorithm trains them by its own
    loss, which is lowest without noise.)

    Noise is added to the last batch norm of each residual block and to its shortcut's norm, as in
    [79]. A residual block is a module with a child named ``shortcut`` or, as in torchvision,
    ``downsample``. In a backbone without such blocks it is added to every `BatchNorm2d`, as [79]
    does in Conv4.

    The backbone itself is not changed: its norms have hooks during a forward pass only. As this
    module is not sequential, Omni-Training runs the layers before ``shared_until`` once per flow;
    the path of such a layer begins with ``backbone.``.

    Args:
        backbone: class or function that makes the backbone. (An existing backbone could neither be
            initialized from the seed of a run nor made twice, as Ensemble needs it.)
        gamma: standard deviation of the scale; at the start, if it is learned.
        beta: standard deviation of the shift; at the start, if it is learned.
        learned: whether gamma and beta are parameters.

    Raises:
        InputError: the backbone has no `BatchNorm2d`, or a deviation is negative.

    Shape: as the backbone.

    Example:
        >>> import torch
        >>> from omnitraining import Conv4, FeatureWise
        >>> backbone = FeatureWise(lambda: Conv4(width=8))
        >>> images = torch.rand(2, 3, 32, 32)
        >>> torch.equal(backbone(images), backbone(images))  # in training there is noise
        False
    """

    def __init__(
        self,
        backbone: Callable[[], nn.Module],
        gamma: float = 0.3,
        beta: float = 0.5,
        learned: bool = False,
    ) -> None:
        """Make the backbone."""
        super().__init__()
        for name, value in (("gamma", gamma), ("beta", beta)):
            if not value >= 0:
                raise InputError(f"{name} is {value}: it must be 0 or more")
        self.backbone = made_by(backbone)
        if not noisy_norms(self.backbone):
            raise InputError(
                f"backbone {type(self.backbone).__name__} has no BatchNorm2d for FeatureWise to "
                "transform"
            )
        self.scale, self.shift = F.softplus(torch.tensor([gamma, beta]), beta=100).tolist()
        self.learned = learned
        sizes = [norm.num_features for norm in noisy_norms(self.backbone)] if learned else []
        self.gammas = nn.ParameterList(torch.full((size,), gamma) for size in sizes)
        self.betas = nn.ParameterList(torch.full((size,), beta) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the backbone, with noise in training mode."""
        norms = noisy_norms(self.backbone) if self.training else []
        hooks = [
            norm.register_forward_hook(partial(self._transform, number))
            for number, norm in enumerate(norms)
        ]
        try:
            features: Tensor = self.backbone(x)
        finally:
            for hook in hooks:
                hook.remove()
        return features

    def _transform(
        self, number: int, norm: nn.Module, inputs: tuple[Tensor, ...], x: Tensor
    ) -> Tensor:
        noise = torch.randn(2, x.shape[1], 1, 1, dtype=x.dtype, device=x.device)
        if not self.learned:
            return torch.addcmul(self.shift * noise[1], x, 1 + self.scale * noise[0])
        strengths = torch.stack([self.gammas[number], self.betas[number]]).view_as(noise)
        scale, shift = F.softplus(strengths, beta=100).to(x.dtype) * noise
        return torch.addcmul(shift, x, 1 + scale)


def noisy_norms(backbone: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of a backbone that `FeatureWise` adds noise to."""
    in_blocks = []
    for block in backbone.modules():
        name = next((name for name in SHORTCUTS if hasattr(block, name)), None)
        if name is not None:
            shortcut = getattr(block, name)  # None in a block of torchvision without projection
            in_blocks += _norms(block.children())[-1:]
            in_blocks += _norms(shortcut.modules()) if shortcut is not None else []
    return in_blocks or _norms(backbone.modules())


def _norms(modules: Iterator[nn.Module]) -> list[nn.BatchNorm2d]:
    return [module for module in modules if isinstance(module, nn.BatchNorm2d)]
