"""A fitted predictor: the flows of a trained model with heads for one new task, and nothing else.

It is what a learner fits, and what exporters and demos build on. It is an `nn.Module` of plain
modules (no parametrization, nothing left to solve), in evaluation mode, whose weights are fixed:

    predictor(levels)             levels [B, C, H, W] in [0, 1] to probabilities [B, N]
    predictor.opinions(levels)    the same by flow
    predictor.shape               (C, H, W) of one image
    predictor.flows[name]         one flow: its backbones and its heads, see `FlowPredictor`

Column n of the probabilities belongs to class n of the learner that fitted it. Every image is
judged by itself. The learner turns files and arrays into levels (`learner.levels(X)`); everything
after that, normalization too, happens in here.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import channels_last

LEAST = 1e-12  # probability below which no logarithm is taken


class FlowPredictor(nn.Module):
    """One flow with its heads; their probabilities are averaged.

    Args:
        backbones: from normalized images (or what the trunk makes of them) to features [B, D];
            where an algorithm adapts the whole network, from them to logits.
        heads: from features [1, B, D] to logits [1, B, N].
        reads: which backbone each head reads.
        means: mean support feature of each class [N, D], of the first backbone.
    """

    def __init__(
        self,
        backbones: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        reads: Sequence[int],
        means: Tensor,
    ) -> None:
        super().__init__()
        self.backbones, self.heads = nn.ModuleList(backbones), nn.ModuleList(heads)
        self.reads = tuple(reads)
        self.register_buffer("means", F.normalize(means, dim=-1))
        self.means: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities [B, N], and the greatest cosine of features and a class mean [B]."""
        features = [backbone(x) for backbone in self.backbones]
        logits = [
            head(features[read].unsqueeze(0))[0]
            for head, read in zip(self.heads, self.reads, strict=True)
        ]
        probabilities = torch.stack([part.softmax(-1) for part in logits]).mean(0)
        cosines = F.normalize(features[0], dim=-1) @ self.means.mT
        return probabilities, cosines.amax(-1)


class Predictor(nn.Module):
    """The vote of some flows, with calibrated probabilities (paper 4.3).

    Args:
        shape: of one image, (C, H, W).
        mean: mean level of each channel [C].
        std: standard deviation of the levels [C].
        trunk: what all flows compute alike.
        flows: by name.
        weights: of each flow in the vote; they sum to 1.
        temperatures: of each flow, by name, and of the vote, as "vote".
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        mean: Tensor,
        std: Tensor,
        trunk: nn.Module,
        flows: Mapping[str, FlowPredictor],
        weights: Mapping[str, float],
        temperatures: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.shape, self.weights, self.temperatures = shape, dict(weights), dict(temperatures)
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))
        self.mean: Tensor
        self.std: Tensor
        self.trunk, self.flows = trunk, nn.ModuleDict(flows)
        self.requires_grad_(False).eval()

    def forward(self, levels: Tensor) -> Tensor:
        """Calibrated probabilities [B, N] of the vote.

        Args:
            levels: images [B, C, H, W] of the predictor's shape, in [0, 1].
        """
        return self.judge(levels)[0]

    def judge(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated probabilities [B, N] of the vote, and how familiar each image is [B].

        Familiarity is the greatest cosine of an image's features and the mean features of a
        class, averaged over the flows that vote.
        """
        found = self._flows(levels)
        weighed = [(self.weights[flow], *judged) for flow, judged in found.items()]
        vote = torch.stack([weight * p for weight, p, _ in weighed]).sum(0)
        familiarity = torch.stack([weight * cosine for weight, _, cosine in weighed]).sum(0)
        return tempered(vote, self.temperatures["vote"]), familiarity

    def opinions(self, levels: Tensor) -> dict[str, Tensor]:
        """Calibrated probabilities [B, N] of each flow that votes."""
        found = self._flows(levels)
        return {flow: tempered(p, self.temperatures[flow]) for flow, (p, _) in found.items()}

    def _flows(self, levels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        x = self.trunk(channels_last((levels - self.mean) / self.std))
        flows = cast(Mapping[str, FlowPredictor], self.flows)
        return {name: flow(x) for name, flow in flows.items()}


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities [..., N] whose logarithms are divided by a temperature; 1 changes nothing."""
    return (probabilities.clamp_min(LEAST).log() / temperature).softmax(-1)
