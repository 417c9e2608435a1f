"""Attention maps (Figure 11): contribution of image regions to a score.

The score is any number that is computed from the features, as the similarity of an image to the
prototype of a class or the logit of a fitted head. Its evidence at a position of a feature map A is

    e_ij = sum over channels c of A_cij * d score / d A_cij                             (HiResCAM)

Grad-CAM averages the gradient over positions first. If the map is averaged over positions before
the head, as in a ResNet, both are the same, and equal to the class activation map. If it is
flattened, as in Conv4, the gradient differs between positions, and the average gives positions the
evidence of others. With HiResCAM the evidence of all positions adds up to the score if the score is
linear in the map. So scores below are inner products with a fixed direction, as in the similarity
maps of Stylianou et al. (Logits of cosines do not depend on the length of the features, so their
evidence always adds up to zero.)

HiResCAM: R. L. Draelos, L. Carin: "Use HiResCAM instead of Grad-CAM for faithful explanations of
convolutional neural networks", 2020, https://arxiv.org/abs/2011.08891

Grad-CAM: R. R. Selvaraju et al.: "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization", ICCV 2017, https://arxiv.org/abs/1610.02391

Class activation map: B. Zhou et al.: "Learning Deep Features for Discriminative Localization",
CVPR 2016, https://arxiv.org/abs/1512.04150

A. Stylianou, R. Souvenir, R. Pless: "Visualizing Deep Similarity Networks", WACV 2019,
https://arxiv.org/abs/1901.00536
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import channels_last
from omnitraining.errors import InputError
from omnitraining.learner.predictor import FlowPredictor, Predictor

LEAST = 4
"""Positions on the shorter side of the default map, at least."""

REGISTERS = 8
"""Largest number of tokens before the patch tokens: class, distillation and register tokens."""

Score = Callable[[Tensor], Tensor]
"""From features [B, D] to scores [B], where each score depends on its own row only."""


def similarity(direction: Tensor) -> Score:
    """The inner product of features with a fixed direction.

    Args:
        direction: the prototype of a class or its contrast to others [D]; or one for each image
            [B, D].
    """
    return lambda features: (features * direction.detach()).sum(-1)


def own_representation(features: Tensor) -> Tensor:
    """Similarity of the features of each image to themselves as constants, [B].

    Args:
        features: [B, D].
    """
    return similarity(features)(features)


def contrasts(prototypes: Tensor) -> Tensor:
    """Prototype of each class minus the mean prototype, [N, D].

    Args:
        prototypes: the mean features of each class [N, D].
    """
    return prototypes - prototypes.mean(0)


def predictor_maps(
    predictor: Predictor, images: Tensor, classes: Tensor, layer: str | None = None
) -> dict[str, Tensor]:
    """Evidence for a class in each flow of a fitted predictor, [B, h, w] by flow.

    The score of a flow is the inner product of its features with the contrast of the class to the
    others, for every kind of head, so that flows of all algorithms can be compared.

    Args:
        predictor: fitted.
        images: [B, C, H, W] of the predictor's shape, in [0, 1].
        classes: index of the class to explain, for each image [B].
        layer: as in `attention_maps`; the path begins with "1.", after the trunk.

    Raises:
        InputError: as in `attention_maps`.
    """
    x = channels_last((images - predictor.mean) / predictor.std)
    maps = {}
    for name, flow in cast(Mapping[str, FlowPredictor], predictor.flows).items():
        backbone = nn.Sequential(predictor.trunk, flow.backbones[0]).eval()
        score = similarity(contrasts(flow.prototypes)[classes])
        maps[name] = attention_maps(backbone, x, score, layer)
    return maps


def attention_maps(
    backbone: nn.Module, x: Tensor, score: Score = own_representation, layer: str | None = None
) -> Tensor:
    """Evidence of every position for the score of each image, [B, h, w]; negative is against it.

    Args:
        backbone: any module that returns features [B, D]: a flow of an `OmniNet`, a plain one. Its
            weights and its mode are not changed; it should be in evaluation mode.
        x: inputs [B, C, H, W].
        score: the score to explain; by default `own_representation`.
        layer: path of the module whose output is the map: [B, C, h, w], or the tokens [B, N, D] of
            a transformer, of which the last h * w are the patches, row by row. By default the last
            map that the score depends on and that has at least 4 positions on its shorter side; in
            a vision transformer these are the input tokens of the last attention.

    Raises:
        InputError: there is no such module or no such map, or the score does not depend on it.
    """
    paths = [path for path, _ in backbone.named_modules()]
    if layer is not None and layer not in paths:
        raise InputError(f"layer {layer!r} is not a module of the backbone")
    with torch.enable_grad(), _recorded(backbone) as outputs:
        # A copy that is no leaf, so that a backbone may change its input in place. Only gradients
        # of the maps are computed, none of weights.
        features = backbone(x.detach().requires_grad_().clone())
        maps = _maps(outputs, x)
        if layer is not None:
            maps = [part for part in maps if part.path == layer]
        elif any(min(part.size) >= LEAST for part in maps):
            maps = [part for part in maps if min(part.size) >= LEAST]
        if not maps:
            raise InputError(
                f"{f'layer {layer!r}' if layer is not None else type(backbone).__name__} gives no "
                "feature map: its output must be [B, C, h, w], or tokens [B, N, D] of patches"
            )
        scores = score(features)
        if scores.shape != x.shape[:1]:
            raise InputError(
                f"the score of {len(x)} images has the shape {list(scores.shape)}: it must be "
                f"[{len(x)}]"
            )
        gradients = (
            torch.autograd.grad(scores.sum(), [part.output for part in maps], allow_unused=True)
            if scores.requires_grad
            else [None] * len(maps)
        )
    for part, gradient in reversed(list(zip(maps, gradients, strict=True))):
        if gradient is not None and part.positions(gradient).any():
            evidence = part.positions(part.output) * part.positions(gradient)
            return evidence.sum(1).detach()
    raise InputError("the score does not depend on any feature map: its gradient there is zero")


def heat(evidence: Tensor, images: Tensor) -> Tensor:
    """Evidence for the score, resized to the images and scaled to at most 1, [B, H, W].

    Args:
        evidence: [B, h, w].
        images: [B, C, H, W].
    """
    size = (images.shape[-2], images.shape[-1])
    large = F.interpolate(evidence.clamp_min(0).unsqueeze(1), size, mode="bicubic").clamp_min(0)
    peak = large.amax((1, 2, 3), keepdim=True)
    return (large / peak.clamp_min(torch.finfo(large.dtype).tiny)).squeeze(1)


@dataclass(frozen=True)
class _Map:
    """A feature map: path of its module, output, and rows and columns of positions."""

    path: str
    output: Tensor
    size: tuple[int, int]

    def positions(self, values: Tensor) -> Tensor:
        """Values of the output's shape as [B, C, h, w], without class tokens and registers."""
        rows, columns = self.size
        if values.dim() == 4:
            return values
        maps: Tensor = values[:, -rows * columns :].mT.unflatten(-1, (rows, columns))
        return maps


@contextmanager
def _recorded(backbone: nn.Module) -> Iterator[list[tuple[str, nn.Module, Tensor]]]:
    """Record the path, module and output of every module, in the order of computation."""
    outputs: list[tuple[str, nn.Module, Tensor]] = []
    hooks = []
    for path, module in backbone.named_modules():
        if "parametrizations" in path.split("."):  # their outputs are weights
            continue

        def keep(module: nn.Module, _: object, output: object, path: str = path) -> None:
            if isinstance(output, tuple) and output:  # blocks of some transformers
                output = output[0]
            if isinstance(output, Tensor):
                outputs.append((path, module, output))

        hooks.append(module.register_forward_hook(keep))
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _maps(outputs: list[tuple[str, nn.Module, Tensor]], x: Tensor) -> list[_Map]:
    """The outputs that are feature maps.

    A backbone never has more positions in a later map; outputs with more are left out, as are the
    attention weights of tokens by tokens. So are queries, keys and values, the outputs of linear
    layers, in favor of the tokens that they are computed from.
    """
    maps: list[_Map] = []
    size = (x.shape[-2], x.shape[-1])
    for path, module, output in outputs:
        if not output.requires_grad or len(output) != len(x):
            continue
        positions = size[0] * size[1]
        if output.dim() == 4 and 1 < output.shape[-2] * output.shape[-1] <= positions:
            size = (output.shape[-2], output.shape[-1])
            maps.append(_Map(path, output, size))
        tokens = output.dim() == 3 and not isinstance(module, nn.Linear)
        if tokens and maps and 1 < positions <= output.shape[1] <= positions + REGISTERS:
            maps.append(_Map(path, output, size))
    return maps
