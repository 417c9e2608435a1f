"""From a support set to a fitted predictor: embed once per flow, then fit the heads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnitraining.batches import channels_last, class_means
from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE
from omnitraining.learner.calibration import VOTE
from omnitraining.learner.predictor import FlowPredictor, Predictor
from omnitraining.learner.trained import Trained
from omnitraining.metatraining import MetaTraining
from omnitraining.omninet import plain

LEVELS = "levels"  # what is kept of the support set where an algorithm adapts the whole network


@dataclass(frozen=True)
class Support:
    """What a fit keeps of the support set.

    Attributes:
        kept: features [S, D] by flow; and the images, uint8 [S, C, H, W], as "levels", if an
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


def flows_of(trained: Trained, flow: str | None) -> tuple[str, str, tuple[str, ...]]:
    """The head that a choice of flow means, in words, and the flows it may need.

    Raises:
        InputError: the model has no such flow.
    """
    flows = trained.model.trained_flows
    if flow is None:
        return VOTE, "the run's vote", trained.inference.members(flows)
    if flow == ENSEMBLE:
        return ENSEMBLE, "the mean of all flows", flows
    if flow not in flows:
        raise InputError(
            f"flow is {flow!r}: {trained.name} has {', '.join(flows)}, and 'ensemble', the mean of "
            "all; None is the vote that the run was judged by"
        )
    return flow, f"the {flow}-flow", (flow,)


def votes_of(trained: Trained, flow: str | None, shots: float) -> dict[str, float]:
    """Weights of the flows that vote."""
    head, _, flows = flows_of(trained, flow)
    if head == VOTE:
        return trained.calibration.vote(shots)
    return dict.fromkeys(flows, 1 / len(flows))


@torch.no_grad()
def embed(trained: Trained, batches: Iterable[Tensor], flow: str | None) -> dict[str, Tensor]:
    """What is kept of images, one forward pass per flow that may vote.

    Args:
        trained: the model.
        batches: uint8 [B, C, H, W], of a size that fits CPU caches.
        flow: as a learner has it.
    """
    parts: dict[str, list[Tensor]] = {}
    _, _, flows = flows_of(trained, flow)
    keep_levels = not only_features(trained, flows)
    for part in batches:
        if keep_levels:
            parts.setdefault(LEVELS, []).append(part)
        x = trained.model.trunk(_normalized(trained, part))
        for name in flows:
            heads = trained.model.heads_of(name, trained.inference.joint_head)
            for head in [head for head in heads if head.algorithm.needs_only_features][:1]:
                parts.setdefault(name, []).append(trained.plain_backbone(head.name)(x))
    return {name: torch.cat(features) for name, features in parts.items()}


@torch.no_grad()
def fitted(trained: Trained, support: Support, flow: str | None) -> Predictor:
    """The predictor of a support set.

    Raises:
        InputError: an algorithm cannot answer so many classes, or cannot judge single queries.
    """
    weights = votes_of(trained, flow, support.shots)
    head, _, _ = flows_of(trained, flow)
    flows = {name: _flow(trained, support, name) for name in weights}
    temperatures = {
        name: trained.calibration.temperature(name, support.shots) for name in (*weights, head)
    }
    inputs = trained.inputs
    if inputs is None:
        raise InputError(f"{trained.name} is a model of curves: it cannot classify images")
    made = Predictor(
        inputs.shape,
        torch.tensor(inputs.mean, dtype=torch.float32),
        torch.tensor(inputs.std, dtype=torch.float32),
        trained.model.trunk,
        flows,
        weights,
        {**temperatures, VOTE: temperatures[head]},
    )
    return made.to(trained.device)


def _flow(trained: Trained, support: Support, flow: str) -> FlowPredictor:
    backbones: list[nn.Module] = []
    heads: list[nn.Module] = []
    reads: list[int] = []
    means: list[Tensor] = []
    ways, labels = support.ways, support.labels.to(trained.device)
    for name, network, algorithm in trained.model.heads_of(flow, trained.inference.joint_head):
        _check_ways(trained, algorithm, ways)
        if algorithm.needs_only_features:
            backbone, features = trained.plain_backbone(name), support.kept[flow]
            head = algorithm.fit(network.head, features[None], labels[None], ways)
        else:
            x = trained.model.trunk(_normalized(trained, support.kept[LEVELS]))
            adapted = algorithm.adapt(network, x, labels)
            backbone, head = plain(adapted.get_submodule("backbone")), adapted.get_submodule("head")
            features = backbone(x)
        if not any(backbone is known for known in backbones):
            backbones.append(backbone)
            means.append(class_means(features[None], labels[None], ways)[0])
        heads.append(head)
        reads.append(next(i for i, known in enumerate(backbones) if known is backbone))
    return FlowPredictor(backbones, heads, reads, means[0])


def _normalized(trained: Trained, levels: Tensor) -> Tensor:
    if trained.inputs is None:
        raise InputError(f"{trained.name} is a model of curves: it cannot classify images")
    mean, std = (
        torch.tensor(v, dtype=torch.float32, device=trained.device).view(-1, 1, 1)
        for v in (trained.inputs.mean, trained.inputs.std)
    )
    return channels_last((levels.to(trained.device) / 255 - mean) / std)


def only_features(trained: Trained, flows: Iterable[str]) -> bool:
    """Whether all heads of some flows need nothing but features."""
    return all(
        head.algorithm.needs_only_features
        for flow in flows
        for head in trained.model.heads_of(flow, trained.inference.joint_head)
    )


def _check_ways(trained: Trained, algorithm: object, ways: int) -> None:
    wanted = trained.model_ways
    if isinstance(algorithm, MetaTraining) and algorithm.fixed_ways and ways != wanted:
        raise InputError(
            f"{type(algorithm).__name__} answers tasks of as many classes as it was trained on, "
            f"{wanted}, and the support set has {ways}: choose flow 'pre' if the model has it, or "
            f"give {wanted} classes"
        )
