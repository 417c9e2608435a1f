"""Learned feature-wise transformation, for unseen domains (Tseng et al. 2020 [79]).

[79] H.-Y. Tseng, H.-Y. Lee, J.-B. Huang, M.-H. Yang: "Cross-Domain Few-Shot Classification via
Learned Feature-Wise Transformation", ICLR 2020, https://arxiv.org/abs/2001.08735 and its code
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call

from omnitraining.adaptation.batched import Weights
from omnitraining.adaptation.inner_loop import in_mode, plain_recurrence, sgd_update
from omnitraining.backbones.feature_wise import FeatureWise
from omnitraining.batches import Episode, MiniBatch
from omnitraining.errors import InputError
from omnitraining.limits import check_positive
from omnitraining.metatraining.base import MetaTraining, WrappedMetaTraining
from omnitraining.metatraining.protonet import ProtoNet
from omnitraining.network import Network


class _OnEpisodes(nn.Module):
    """A network as a function from tasks to the outputs of an algorithm."""

    def __init__(self, algorithm: MetaTraining, network: Network) -> None:
        super().__init__()
        self.algorithm, self.network = algorithm, network

    def forward(self, episode: Episode) -> Tensor:
        return self.algorithm.predict(self.network, episode)


@dataclass(frozen=True)
class LearnedFT(WrappedMetaTraining):
    """Trains an algorithm with noise in its features, of strengths that help on another domain.

    Each step has tasks of two domains of training. The network learns from the first, pseudo-seen
    one, with noise: theta' = theta - lr grad_theta L_seen(theta, strengths). The strengths of the
    noise learn from the loss of theta' on the second, pseudo-unseen domain without noise:
    grad_strengths L_unseen(theta'), through that gradient step. Both gradients go to the optimizer
    of the training; the loss is L_seen.

    The backbone must be `FeatureWise` with ``learned``, and the problem have two domains of
    training or more. Self-distillation in Omni-Training, where it is on, acts on the strengths too.

    The authors draw the two domains anew for each epoch; here they are drawn for each step. In the
    authors' code the strengths have a separate optimizer, with the same learning rate.

    Args:
        algorithm: what is trained; one that trains as it predicts, and leaves the features of a
            task as they are.
        lr: of the gradient step, as the authors' 0.001.

    Raises:
        InputError: ``algorithm`` does not train as it predicts or adapts the backbone, or ``lr`` is
            not above 0.

    Example:
        >>> import torch
        >>> from omnitraining import Conv4, FeatureWise, LearnedFT, ProtoNet
        >>> algorithm = LearnedFT(ProtoNet())
        >>> backbone = FeatureWise(lambda: Conv4(width=8), learned=True)
        >>> algorithm.head_for(backbone, features=32, outputs=5, classes=10)
        Identity()
        >>> algorithm.domains
        2
    """

    algorithm: MetaTraining = field(default_factory=ProtoNet)
    lr: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.algorithm.needs_only_features:
            raise InputError(
                f"metatraining.algorithm is {type(self.algorithm).__name__}, which adapts the "
                "backbone to each task: LearnedFT takes algorithms that do not, as ProtoNet or GNN"
            )
        check_positive("metatraining", self, "lr")

    @property
    def domains(self) -> int:
        """The pseudo-seen and the pseudo-unseen domain."""
        return 2

    def head_for(self, backbone: nn.Module, features: int, outputs: int, classes: int) -> nn.Module:
        """As in `algorithm`.

        Raises:
            InputError: the backbone has no noise of learned strength.
        """
        if not _strengths(backbone):
            raise InputError(
                "LearnedFT learns the strengths of noise in the backbone, which must be "
                "FeatureWise with learned: true"
            )
        return super().head_for(backbone, features, outputs, classes)

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Outputs [T, Q, O] of the tasks of both domains, and the loss of the pseudo-seen domain.

        The gradient of this loss by the strengths is that of the pseudo-unseen domain's loss.

        Raises:
            InputError: the tasks are not of two domains.
        """
        if episode.domains != self.domains:
            raise InputError(
                f"LearnedFT needs tasks of {self.domains} domains in each step, and these are of "
                f"{episode.domains}: train it on a problem of classification with several"
            )
        seen, unseen = episode.split(len(episode.query_y) // 2)
        run, noisy = _OnEpisodes(self.algorithm, network), _strengths(network)
        if not noisy:
            raise InputError(
                "loss.pre_on_episodes is true, but LearnedFT passes tasks through the backbone in "
                "two ways: set it to false"
            )
        with plain_recurrence(network):
            outputs = run(seen)
            loss = self.loss(outputs, seen.query_y)
            if not torch.is_grad_enabled():
                with _without_noise(network):
                    return torch.cat([outputs, run(unseen)]), loss
            weights: Weights = {n: w for n, w in network.named_parameters() if w.requires_grad}
            strengths: Weights = {n: weights.pop(n) for n in noisy if n in weights}
            slopes = _slopes(loss, weights, create_graph=True)
            moved = sgd_update(weights, slopes, self.lr)
            with _without_noise(network):
                state = {f"network.{name}": weight for name, weight in moved.items()}
                others: Tensor = functional_call(run, state, (unseen,))
            transfer = self.loss(others, unseen.query_y)
            own, wanted = _slopes(loss, strengths), _slopes(transfer, strengths)
        for name, strength in strengths.items():  # 0, with the difference of both as gradient
            loss = loss + ((wanted[name] - own[name]) * (strength - strength.detach())).sum()
        return torch.cat([outputs, others]), loss


def _strengths(network: nn.Module) -> list[str]:
    """Names of the parameters that are strengths of noise."""
    return [
        f"{path}.{name}" if path else name
        for path, module in network.named_modules()
        if isinstance(module, FeatureWise)
        for name, _ in module.named_parameters()
        if name.startswith(("gammas.", "betas."))
    ]


def _slopes(loss: Tensor, weights: Weights, create_graph: bool = False) -> Weights:
    """The gradient of a loss by weights, after which it can be differentiated again."""
    parts = torch.autograd.grad(
        loss,
        list(weights.values()),
        create_graph=create_graph,
        retain_graph=True,
        materialize_grads=True,
    )
    return dict(zip(weights, parts, strict=True))


def _without_noise(network: nn.Module) -> AbstractContextManager[None]:
    """Norms go on with the statistics of the batch."""
    return in_mode([m for m in network.modules() if isinstance(m, FeatureWise)], training=False)
