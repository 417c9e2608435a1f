"""Attention maps (Figure 11): contribution of image regions to a score.

The score is any number that is computed from the features: the similarity of an image to the
prototype of a class, the logit of a fitted head. Its evidence at a place of a feature map A is

    e_ij = sum over channels c of A_cij * d score / d A_cij        (HiResCAM, Draelos & Carin 2020)

Why not Grad-CAM (Selvaraju et al. 2017), which averages the gradient over places first: where the
map is averaged over places before the head, as in a ResNet, both are the same, and equal to the
class activation map of Zhou et al. 2016; where it is flattened, as in Conv4, the gradient differs
from place to place, and the average blames places for what others did. Here the evidence of all
places adds up to the score wherever the score is linear in the map. That is why scores below are
inner products with a fixed direction, as Stylianou et al. 2019 ("Visualizing Deep Similarity
Networks") take apart a similarity: logits of cosines do not change with the length of the features,
so that their evidence always adds up to zero.
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

LEAST = 4  # places on the shorter side of the default map; fewer tell nothing about an image

REGISTERS = (
    8  # tokens before those of the patches, at most: of the class, of distillation, free ones
)

Score = Callable[[Tensor], Tensor]
"""From features [B, D] to scores [B], one of each image, computed row by row."""


def similarity(direction: Tensor) -> Score:
    """The inner product of features with a fixed direction.

    Args:
        direction: the prototype of a class, or what tells it from others [D]; or one for each
            image [B, D].
    """
    return lambda features: (features * direction.detach()).sum(-1)


def own_representation(features: Tensor) -> Tensor:
    """The similarity of each representation to itself as it is: what it is made of, [B]."""
    return similarity(features)(features)


def contrasts(prototypes: Tensor) -> Tensor:
    """What tells each class from the others: its prototype minus the mean prototype, [N, D].

    Args:
        prototypes: the mean features of each class [N, D].
    """
    return prototypes - prototypes.mean(0)


def predictor_maps(
    predictor: Predictor, images: Tensor, classes: Tensor, layer: str | None = None
) -> dict[str, Tensor]:
    """What speaks for a class in each flow of a fitted predictor, [B, h, w] by flow.

    The score of a flow is the similarity of its features to what tells the class from the others,
    whatever head the flow has: so that flows of all algorithms can be compared.

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
    """The evidence of every place for the score of each image, [B, h, w]; negative is against it.

    Args:
        backbone: any module that returns features [B, D]: a flow of an `OmniNet`, a plain one. Its
            weights and its mode stay as they are; it should be in evaluation mode.
        x: inputs [B, C, H, W].
        score: what to explain; by default what the representation is made of.
        layer: path of the module whose output is the map: [B, C, h, w], or the tokens [B, N, D] of
            a transformer, of which the last h * w are the patches in reading order. By default the
            last map that bears on the score and has at least 4 places on its shorter side; in a
            vision transformer these are the tokens that the last attention reads.

    Raises:
        InputError: there is no such module or no such map, or the score does not depend on it.
    """
    paths = [path for path, _ in backbone.named_modules()]
    if layer is not None and layer not in paths:
        raise InputError(f"layer {layer!r} is not a module of the backbone")
    with torch.enable_grad(), _recorded(backbone) as outputs:
        # A copy that is no leaf, so that a backbone may change its input in place. Weights take
        # part in no gradient: only those of the maps are asked for.
        features = backbone(x.detach().requires_grad_().clone())
        maps = _maps(outputs, x)
        if layer is not None:
            maps = [found for found in maps if found.path == layer]
        elif any(min(found.size) >= LEAST for found in maps):
            maps = [found for found in maps if min(found.size) >= LEAST]
        if not maps:
            raise InputError(
                f"{f'layer {layer!r}' if layer is not None else type(backbone).__name__} gives no "
                "map of places: it must put out [B, C, h, w], or tokens [B, N, D] of patches"
            )
        scores = score(features)
        if scores.shape != x.shape[:1]:
            raise InputError(
                f"the score of {len(x)} images has the shape {list(scores.shape)}: it must be "
                f"[{len(x)}]"
            )
        gradients = (
            torch.autograd.grad(scores.sum(), [found.output for found in maps], allow_unused=True)
            if scores.requires_grad
            else [None] * len(maps)
        )
    for found, gradient in reversed(list(zip(maps, gradients, strict=True))):
        if gradient is not None and found.places(gradient).any():
            evidence = found.places(found.output) * found.places(gradient)
            return evidence.sum(1).detach()
    raise InputError("the score does not depend on any map of places: its gradient there is zero")


def heat(evidence: Tensor, images: Tensor) -> Tensor:
    """Evidence for the score as a picture over the images, from 0 to 1 in each, [B, H, W].

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
    """An output that has places: path of its module, output, and rows and columns of places."""

    path: str
    output: Tensor
    size: tuple[int, int]

    def places(self, values: Tensor) -> Tensor:
        """Values of the output's shape as [B, C, h, w], without class tokens and registers."""
        rows, columns = self.size
        if values.dim() == 4:
            return values
        maps: Tensor = values[:, -rows * columns :].mT.unflatten(-1, (rows, columns))
        return maps


@contextmanager
def _recorded(backbone: nn.Module) -> Iterator[list[tuple[str, nn.Module, Tensor]]]:
    """Keeps what every module puts out, in the order in which they are done."""
    outputs: list[tuple[str, nn.Module, Tensor]] = []
    hooks = []
    for path, module in backbone.named_modules():
        if "parametrizations" in path.split("."):  # these put out weights
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
    """The outputs that are maps of places.

    A backbone never goes back to more places, but attention makes tables of tokens by tokens,
    which look like maps of very many: these are left out. So are queries, keys and values, which
    linear layers put out: what they are made of is the state of a place.
    """
    maps: list[_Map] = []
    size = (x.shape[-2], x.shape[-1])
    for path, module, output in outputs:
        if not output.requires_grad or len(output) != len(x):
            continue
        places = size[0] * size[1]
        if output.dim() == 4 and 1 < output.shape[-2] * output.shape[-1] <= places:
            size = (output.shape[-2], output.shape[-1])
            maps.append(_Map(path, output, size))
        tokens = output.dim() == 3 and not isinstance(module, nn.Linear)
        if tokens and maps and 1 < places <= output.shape[1] <= places + REGISTERS:
            maps.append(_Map(path, output, size))
    return maps
