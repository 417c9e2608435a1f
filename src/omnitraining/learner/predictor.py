"""A fitted predictor: the flows of a trained model, with heads for one new task.

It is the result of a fit, and what exporters and the demo use: an `nn.Module` in evaluation mode,
made of plain modules (no parametrization, nothing left to solve) with fixed weights.

    predictor(images)                       probabilities [B, N] of images [B, C, H, W] in [0, 1]
    predictor.predict_with_scores(images)   the same, and the similarity to the nearest class [B]
    predictor.predict_per_flow(images)      probabilities by flow
    predictor.shape                         (C, H, W) of one image
    predictor.flows[name]                   a `FlowPredictor`: backbones and heads of one flow

Column n of the probabilities is class n of the learner that fitted it. Every image is predicted
independently of the others. `FewShotClassifier.preprocess` makes images of files and arrays;
normalization is part of the predictor.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import channels_last
from omnitraining.evaluation import ensemble_mean
from omnitraining.views import mean_of_views, with_mirror_images

MIN_PROBABILITY = 1e-12
"""Probabilities are raised to it before their logarithm is taken."""


class FlowPredictor(nn.Module):
    """One flow with its heads, whose probabilities are averaged.

    Args:
        backbones: from normalized images (or the trunk's features of them) to features [B, D];
            where an algorithm adapts the whole network, from them to logits.
        heads: from features [1, B, D] to logits [1, B, N].
        backbone_index: for each head, the index of its backbone.
        prototypes: mean support feature of each class [N, D], of the first backbone.
        flip: whether features are the mean of an image's and its mirror image's.
    """

    def __init__(
        self,
        backbones: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        backbone_index: Sequence[int],
        prototypes: Tensor,
        flip: bool = False,
    ) -> None:
        """Register the prototypes, normalized to length 1, as a buffer."""
        super().__init__()
        self.flip = flip
        self.backbones, self.heads = nn.ModuleList(backbones), nn.ModuleList(heads)
        self.backbone_index = tuple(backbone_index)
        self.register_buffer("prototypes", F.normalize(prototypes, dim=-1))
        self.prototypes: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [B, N], and the largest cosine similarity to a prototype [B].

        Args:
            x: normalized images, or the trunk's features of them [B, ...]; with ``flip`` of the
                mirror images too [2B, ...].
        """
        features = [backbone(x) for backbone in self.backbones]
        if self.flip:
            features = [mean_of_views(part) for part in features]
        logits = [
            head(features[index].unsqueeze(0))[0]
            for head, index in zip(self.heads, self.backbone_index, strict=True)
        ]
        probabilities = torch.stack([part.softmax(-1) for part in logits]).mean(0)
        cosines = F.normalize(features[0], dim=-1) @ self.prototypes.mT
        return probabilities, cosines.amax(-1)


class Predictor(nn.Module):
    """The weighted ensemble of some flows, with calibrated probabilities (paper 4.3).

    Args:
        shape: of one image, (C, H, W).
        mean: mean pixel value of each channel [C].
        std: standard deviation of the pixel values of each channel [C].
        trunk: the layers that all flows share.
        flows: by name.
        flip: whether features are the mean of an image's and its mirror image's.
        weights: ensemble weight of each flow; they sum to 1.
        temperatures: calibration temperature of each flow alone.
        temperature: calibration temperature of the ensemble.

    Example:
        >>> import numpy as np
        >>> from omnitraining import FewShotClassifier
        >>> images = np.stack([np.eye(28), np.fliplr(np.eye(28))])
        >>> learner = FewShotClassifier("glyphs").fit(images, ["down", "up"])
        >>> predictor = learner.predictor_
        >>> predictor(learner.preprocess(images)).argmax(1)
        tensor([0, 1])
        >>> predictor.shape, sorted(predictor.flows)
        ((1, 32, 32), ['joint', 'pre'])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        mean: Tensor,
        std: Tensor,
        trunk: nn.Module,
        flows: Mapping[str, FlowPredictor],
        flip: bool,
        weights: Mapping[str, float],
        temperatures: Mapping[str, float],
        temperature: float,
    ) -> None:
        """Freeze the weights and set evaluation mode."""
        super().__init__()
        self.shape, self.flip, self.weights = shape, flip, dict(weights)
        self.temperatures, self.temperature = dict(temperatures), temperature
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))
        self.mean: Tensor
        self.std: Tensor
        self.trunk, self.flows = trunk, nn.ModuleDict(flows)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Calibrated probabilities [B, N] of the ensemble.

        Args:
            images: [B, C, H, W] of the predictor's shape, in [0, 1].
        """
        return self.predict_with_scores(images)[0]

    def predict_with_scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated probabilities [B, N], and the similarity to the nearest class [B].

        The similarity is the largest cosine of an image's features and the prototype (the mean
        support feature) of a class, averaged over the flows with their ensemble weights.

        Args:
            images: [B, C, H, W] of the predictor's shape, in [0, 1].
        """
        outputs = self._flow_outputs(images)
        probabilities = ensemble_mean({f: p for f, (p, _) in outputs.items()}, self.weights)
        similarity = ensemble_mean({f: s for f, (_, s) in outputs.items()}, self.weights)
        return tempered(probabilities, self.temperature), similarity

    def predict_per_flow(self, images: Tensor) -> dict[str, Tensor]:
        """Calibrated probabilities [B, N] of each flow alone.

        Args:
            images: [B, C, H, W] of the predictor's shape, in [0, 1].
        """
        outputs = self._flow_outputs(images)
        return {flow: tempered(p, self.temperatures[flow]) for flow, (p, _) in outputs.items()}

    def _flow_outputs(self, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Probabilities and similarity by flow."""
        x = (images - self.mean) / self.std
        x = self.trunk(channels_last(with_mirror_images(x) if self.flip else x))
        flows = cast(Mapping[str, FlowPredictor], self.flows)
        return {name: flow(x) for name, flow in flows.items()}


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities [..., N] whose logarithms are divided by a temperature; 1 changes nothing."""
    return (probabilities.clamp_min(MIN_PROBABILITY).log() / temperature).softmax(-1)
