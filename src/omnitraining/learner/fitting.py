"""From a support set to a fitted predictor: embed once per flow, then fit the heads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnitraining.batches import channels_last, class_means
from omnitraining.errors import InputError
from omnitraining.learner.ensemble import Ensemble
from omnitraining.learner.predictor import FlowPredictor, Predictor
from omnitraining.learner.trained import TrainedModel
from omnitraining.metatraining import MetaTraining
from omnitraining.omninet import plain
from omnitraining.views import features_of

PIXELS = "levels"
"""Key, in files too, of the support images; kept where an algorithm adapts the whole network."""


@dataclass(frozen=True)
class Support:
    """The support set of a fit, as it is kept.

    Attributes:
        kept: features [S, D] by flow; and the images, uint8 [S, C, H, W], by `PIXELS`, if an
            algorithm adapts the whole network.
        labels: class indices [S].
        ways: number of classes.
    """

    kept: Mapping[str, Tensor]
    labels: Tensor
    ways: int

    @property
    def shots(self) -> float:
        """Support images per class, on average."""
        return len(self.labels) / self.ways


@torch.no_grad()
def embed(ensemble: Ensemble, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """The kept tensors of images (see `Support`), by one forward pass per member.

    Args:
        ensemble: the flows.
        batches: uint8 [B, C, H, W], of a size that fits CPU caches.
    """
    trained, parts = ensemble.trained, dict[str, list[Tensor]]()
    keep_pixels = not ensemble.needs_only_features
    networks = {
        flow: head.name  # the networks of a flow share their backbone
        for flow in ensemble.members
        for head in ensemble.heads(flow)
        if head.algorithm.needs_only_features
    }
    for pixels in batches:
        if keep_pixels:
            parts.setdefault(PIXELS, []).append(pixels)
        found = features_of(
            _normalized(trained, pixels),
            trained.model.trunk,
            map(trained.plain_backbone, networks.values()),
            trained.inference.flip,
        )
        for flow, part in zip(networks, found, strict=True):
            parts.setdefault(flow, []).append(part)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


@torch.no_grad()
def fit_predictor(ensemble: Ensemble, support: Support) -> Predictor:
    """The predictor of a support set.

    Raises:
        InputError: an algorithm cannot predict this many classes, or cannot predict queries one by
            one.
    """
    trained, shots = ensemble.trained, support.shots
    inputs, calibration = trained.image_inputs, trained.calibration
    weights = ensemble.weights(shots)
    predictor = Predictor(
        inputs.shape,
        torch.tensor(inputs.mean, dtype=torch.float32),
        torch.tensor(inputs.std, dtype=torch.float32),
        trained.model.trunk,
        {flow: _fit_flow(ensemble, support, flow) for flow in weights},
        trained.inference.flip,
        weights,
        {flow: calibration.temperature(flow, shots) for flow in weights},
        calibration.temperature(ensemble.head, shots),
    )
    return predictor.to(trained.device)


def _fit_flow(ensemble: Ensemble, support: Support, flow: str) -> FlowPredictor:
    trained = ensemble.trained
    backbones: list[nn.Module] = []
    heads: list[nn.Module] = []
    backbone_index: list[int] = []
    prototypes: list[Tensor] = []
    ways, labels = support.ways, support.labels.to(trained.device)
    for name, network, algorithm in ensemble.heads(flow):
        _check_ways(trained, algorithm, ways)
        if algorithm.needs_only_features:
            backbone, features = trained.plain_backbone(name), support.kept[flow]
            head = algorithm.fit(network.head, features[None], labels[None], ways)
        else:
            x = trained.model.trunk(_normalized(trained, support.kept[PIXELS]))
            adapted = algorithm.adapt(network, x, labels)
            backbone, head = plain(adapted.get_submodule("backbone")), adapted.get_submodule("head")
            features = backbone(x)
        if not any(backbone is other for other in backbones):
            backbones.append(backbone)
            prototypes.append(class_means(features[None], labels[None], ways)[0])
        heads.append(head)
        backbone_index.append(next(i for i, other in enumerate(backbones) if other is backbone))
    flip = trained.inference.flip
    return FlowPredictor(backbones, heads, backbone_index, prototypes[0], flip)


def _normalized(trained: TrainedModel, pixels: Tensor) -> Tensor:
    """Images uint8 [B, C, H, W] as the network takes them."""
    inputs = trained.image_inputs
    mean, std = (
        torch.tensor(v, dtype=torch.float32, device=trained.device).view(-1, 1, 1)
        for v in (inputs.mean, inputs.std)
    )
    return channels_last((pixels.to(trained.device) / 255 - mean) / std)


def _check_ways(trained: TrainedModel, algorithm: object, ways: int) -> None:
    wanted = trained.model_ways
    if isinstance(algorithm, MetaTraining) and not algorithm.takes_ways(ways, wanted):
        most = "at most as" if algorithm.limited_ways else "as"
        raise InputError(
            f"{type(algorithm).__name__} predicts {most} many classes as it was trained on, "
            f"{wanted}, and the support set has {ways}: choose flow 'pre' if the model has it, or "
            f"give {wanted} classes"
        )
