"""Scaling and shifting of frozen convolutions, the parameters of meta-transfer learning [70].

[70] Q. Sun, Y. Liu, T.-S. Chua, B. Schiele: "Meta-Transfer Learning for Few-Shot Learning", CVPR
2019, https://arxiv.org/abs/1812.02391
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from omnitraining.backbones.frozen import made_by
from omnitraining.errors import InputError


class ScaleShift(nn.Module):
    """A backbone whose convolutions are frozen, and scaled and shifted by learned factors.

    A convolution computes ``(W * S) x + b + s``: S is one factor for each pair of an output and an
    input channel, which starts at 1, and s a shift for each output channel, which starts at 0
    (Phi_S1 and Phi_S2 of [70]). Convolutions without a bias have no shift: the shift of the norm
    after them has the same effect. Norms and all other layers are trained as usual.

    With ``start_from``, which names a run of Baseline, and `HardTasks` over `ANIL` as
    meta-training, it is meta-transfer learning (MTL): the inner loop adapts the classifier, the
    outer loop S, s and the classifier's start.

    Args:
        backbone: class or function that makes the backbone.

    Raises:
        InputError: it makes no convolution, or a module is given in place of what makes one.

    Shape: as the backbone.

    Example:
        >>> import torch
        >>> from omnitraining import Conv4, ScaleShift
        >>> backbone = ScaleShift(lambda: Conv4(width=8))
        >>> images = torch.rand(2, 3, 32, 32)
        >>> torch.equal(backbone(images), backbone.backbone(images))  # at the start
        True
        >>> [tuple(scale.shape) for scale in backbone.scales][:2]
        [(8, 3, 1, 1), (8, 8, 1, 1)]
    """

    def __init__(self, backbone: Callable[[], nn.Module]) -> None:
        """Make the backbone, freeze its convolutions, and add the factors."""
        super().__init__()
        self.backbone = made_by(backbone)
        convolutions = {
            path: module
            for path, module in self.backbone.named_modules()
            if isinstance(module, _ConvNd)
        }
        if not convolutions:
            raise InputError(
                f"backbone {type(self.backbone).__name__} has no convolution for ScaleShift to "
                "scale"
            )
        self.paths = tuple(convolutions)
        self.scales, self.shifts = nn.ParameterList(), nn.ParameterDict()
        for path, module in convolutions.items():
            module.requires_grad_(False)
            kernel = (1,) * len(module.kernel_size)
            self.scales.append(torch.ones(*module.weight.shape[:2], *kernel))
            if module.bias is not None:
                self.shifts[path.replace(".", "/")] = torch.zeros(len(module.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the backbone, its convolutions scaled and shifted.

        Raises:
            InputError: it is part of an Omni-Net.
        """
        weights = {}
        for path, scale in zip(self.paths, self.scales, strict=True):
            convolution = self.backbone.get_submodule(path)
            if parametrize.is_parametrized(convolution):
                raise InputError(
                    "ScaleShift keeps convolutions as they are, and an Omni-Net gives each flow "
                    "its own: train it with method: meta-training"
                )
            weights[f"{path}.weight"] = convolution.weight * scale
            if (name := path.replace(".", "/")) in self.shifts:
                weights[f"{path}.bias"] = convolution.bias + self.shifts[name]
        features: Tensor = functional_call(self.backbone, weights, (x,))
        return features
