"""Features of a task: scales and shifts after the norms of a backbone, which depend on the task.

E. Perez, F. Strub, H. de Vries, V. Dumoulin, A. Courville: "FiLM: Visual Reasoning with a General
Conditioning Layer", AAAI 2018, https://arxiv.org/abs/1709.07871
"""

import copy
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from omnitraining.backbones.feature_wise import SHORTCUTS


class Modulation(NamedTuple):
    """The modulation after a norm: ``scale * x + shift`` of each channel.

    Attributes:
        scale: [T, C].
        shift: [T, C].
    """

    scale: Tensor
    shift: Tensor


Modulations = Mapping[str, Modulation]
"""By the path of a norm in the backbone."""


def modulated_norms(backbone: nn.Module) -> dict[str, int]:
    """Channels C of the batch norms that can be modulated, by path: all except in shortcuts.

    Args:
        backbone: any module.
    """
    return {
        path: module.num_features
        for path, module in backbone.named_modules()
        if isinstance(module, _BatchNorm) and not {*SHORTCUTS} & {*path.split(".")}
    }


def modulated(backbone: nn.Module, x: Tensor, modulations: Modulations) -> Tensor:
    """Features [B, D] of a backbone whose norms are modulated, for the tasks of each sample.

    The backbone itself is not changed: its norms have hooks during the forward pass only.

    Args:
        backbone: any module.
        x: inputs [B, ...] of T tasks, one after the other and equally many of each.
        modulations: of each task [T, C].
    """

    def hook_of(modulation: Modulation) -> object:
        def hook(norm: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
            samples, trailing = len(y) // len(modulation.scale), (1,) * (y.dim() - 2)
            scale, shift = (
                part.to(y.dtype).repeat_interleave(samples, 0).unflatten(1, (-1, *trailing))
                for part in modulation
            )
            return torch.addcmul(shift, y, scale)

        return hook

    hooks = [
        backbone.get_submodule(path).register_forward_hook(hook_of(modulation))  # type: ignore[arg-type]
        for path, modulation in modulations.items()
    ]
    try:
        features: Tensor = backbone(x)
    finally:
        for hook in hooks:
            hook.remove()
    return features


@torch.no_grad()
def modulated_copy(backbone: nn.Module, modulations: Modulations) -> nn.Module:
    """A copy of a backbone with the modulations of one task, T = 1, in its norms' own weights."""
    copied = copy.deepcopy(backbone)
    for path, (scale, shift) in modulations.items():
        norm = cast(_BatchNorm, copied.get_submodule(path))
        weight = norm.weight if norm.weight is not None else torch.ones_like(scale[0])
        bias = norm.bias if norm.bias is not None else torch.zeros_like(shift[0])
        norm.weight = nn.Parameter(weight * scale[0])
        norm.bias = nn.Parameter(bias * scale[0] + shift[0])
        norm.affine = True
    return copied.requires_grad_(False)
