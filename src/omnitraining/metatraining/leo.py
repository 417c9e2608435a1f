"""LEO: classifiers that are decoded from latent codes, which adapt (Rusu et al. 2019 [62]).

[62] A. A. Rusu, D. Rao, J. Sygnowski, O. Vinyals, R. Pascanu, S. Osindero, R. Hadsell:
"Meta-Learning with Latent Embedding Optimization", ICLR 2019, https://arxiv.org/abs/1807.05960 and
its code

In shapes, Z is the size of a latent code.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnitraining.batches import Episode, MiniBatch, class_means
from omnitraining.heads import LinearClassifier
from omnitraining.limits import check_least, check_positive, check_proper_part
from omnitraining.losses import cross_entropy
from omnitraining.metatraining.base import MetaTraining
from omnitraining.network import Network
from omnitraining.precision import at_least_float32

LEAST_DEVIATION = 1e-10
TASKS_AT_ONCE = 50  # at test; pairs of support samples of more would take much memory


class Adapted(NamedTuple):
    """The classifiers of T tasks, and the terms that regularize how they were made.

    Attributes:
        weight: of each class [T, N, D].
        divergence: KL divergence of the codes from N(0, 1), by the samples; a scalar.
        drift: mean squared difference of codes before and after adaptation; a scalar.
    """

    weight: Tensor
    divergence: Tensor
    drift: Tensor


class LatentCodes(nn.Module):
    """The encoder, the relation network and the decoder of [62], and learned step sizes.

    Codes and weights are sampled in training; at test they are the means.

    Args:
        features: D.
        latents: Z.
        ways: classes of a training task, for the initial spread of weights.
        dropout: of the support features, in the encoder and the inner loss.
        lr: step size of codes at the start.
        fine_lr: step size of weights at the start.
    """

    def __init__(
        self, features: int, latents: int, ways: int, dropout: float, lr: float, fine_lr: float
    ) -> None:
        """Make the layers, which have no bias."""
        super().__init__()
        self.trained_ways, self.offset = ways, (2 / (features + ways)) ** 0.5
        self.dropout = nn.Dropout(dropout)
        self.encode = nn.Linear(features, latents, bias=False)
        width = 2 * latents
        self.relate = nn.Sequential(
            nn.Linear(width, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
        )
        self.decode = nn.Linear(latents, 2 * features, bias=False)
        self.lr = nn.Parameter(torch.tensor(lr))
        self.fine_lr = nn.Parameter(torch.tensor(fine_lr))

    def forward(
        self, support: Tensor, labels: Tensor, ways: int, steps: int, fine_steps: int
    ) -> Adapted:
        """Classifiers of T tasks.

        Args:
            support: features [T, S, D].
            labels: class indices [T, S].
            ways: number of classes N.
            steps: gradient steps of the codes.
            fine_steps: gradient steps of the weights after them.
        """
        x, target = self.dropout(support), F.one_hot(labels, ways).to(support.dtype)
        start, divergence = self._codes(x, labels, ways)
        codes = start
        for _ in range(steps):
            weight, spread, noise = self._weights(codes)
            slope = self._backward(_slope(weight, x, target), spread, noise)
            codes = codes - self.lr * slope
        weight = self._weights(codes)[0]
        for _ in range(fine_steps):
            weight = weight - self.fine_lr * _slope(weight, x, target)
        return Adapted(weight, divergence, F.mse_loss(start, codes.detach()))

    def orthogonality(self) -> Tensor:
        """Mean squared deviation from 1 of the correlations of the decoder's rows; a scalar."""
        rows = F.normalize(self.decode.weight.mT, dim=-1)  # of each latent [Z, 2 D]
        identity = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
        return (rows @ rows.mT - identity).square().mean()

    def _codes(self, x: Tensor, labels: Tensor, ways: int) -> tuple[Tensor, Tensor]:
        """A code of each class [T, N, Z], and its divergence from N(0, 1)."""
        latents, samples = self.encode(x), x.shape[1]
        pairs = torch.cat(
            [
                latents.unsqueeze(2).expand(-1, -1, samples, -1),
                latents.unsqueeze(1).expand(-1, samples, -1, -1),
            ],
            -1,
        )
        related = class_means(self.relate(pairs).mean(2), labels, ways)  # [T, N, 2 Z]
        mean, spread = _normal(related, 0.0)
        if not self.training:
            return mean, mean.new_zeros(())
        codes = mean + spread * torch.randn_like(mean)
        # log N(codes; mean, spread) - log N(codes; 0, 1)
        excess = codes.square() - ((codes - mean) / spread).square()
        return codes, (excess / 2 - spread.log()).mean()

    def _weights(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights [T, N, D] of codes, and the deviation and the noise that they were drawn with."""
        mean, spread = _normal(self.decode(codes), 1 - self.offset)
        if not self.training:
            return mean, torch.zeros_like(mean), torch.zeros_like(mean)
        noise = torch.randn_like(mean)
        return mean + spread * noise, spread, noise

    def _backward(self, slope: Tensor, spread: Tensor, noise: Tensor) -> Tensor:
        """The gradient by codes [T, N, Z] of the gradient by weights [T, N, D]."""
        # The deviation is exp(u) - (1 - offset), whose slope is exp(u); at its least it is constant
        growth = torch.where(
            spread > LEAST_DEVIATION, spread + 1 - self.offset, torch.zeros_like(spread)
        )
        return torch.cat([slope, slope * noise * growth], -1) @ self.decode.weight


def _normal(x: Tensor, less: float) -> tuple[Tensor, Tensor]:
    """Means and deviations of halves: exp of the second one, less a number."""
    mean, exponent = x.chunk(2, -1)
    return mean, (exponent.exp() - less).clamp_min(LEAST_DEVIATION)


def _slope(weight: Tensor, x: Tensor, target: Tensor) -> Tensor:
    """The gradient [T, N, D] of the mean cross-entropy of logits x W^T."""
    residual = torch.softmax(x @ weight.mT, -1) - target
    slope: Tensor = residual.mT @ x / x.shape[1]
    return slope


@dataclass(frozen=True)
class LEO(MetaTraining):
    """Encodes a support set, adapts the codes by gradient steps, and decodes them to classifiers.

    A class has a code z_n, drawn from a normal distribution that a relation network of all pairs
    of support samples predicts; its weights w_n are drawn from a normal distribution that a linear
    decoder predicts from z_n. Gradient steps on the support loss change the codes, then the
    weights:

    z_n ~ N(mu, sigma^2) with (mu, sigma) = mean_ij relate(encode(x_i), encode(x_j)), y_i = n
    w_n ~ N(mu, sigma^2) with (mu, sigma) = decode(z_n)

    In [62] these are the initialization by a few examples and the inner loop. The outer loss is the
    loss of the queries, plus ``kl_weight`` times the divergence of codes from N(0, 1),
    ``encoder_penalty`` times their squared change by adaptation, and ``orthogonality`` times the
    correlation of the decoder's rows. Defaults are from the authors' code, whose L2 penalty is the
    optimizer's weight decay here.

    [62] trains it on the features of a trained network. Here ``start_from`` names such a network
    and `Frozen` keeps it fixed; without these, the backbone is trained jointly.

    Args:
        latents: size of a code.
        steps: gradient steps of codes.
        lr: their step size at the start; it is learned.
        fine_steps: gradient steps of weights.
        fine_lr: their step size at the start; it is learned.
        dropout: probability that a support feature is left out, in training.
        normalize: scale features to length 1 first.
        kl_weight: weight of the divergence.
        encoder_penalty: weight of the change of codes.
        orthogonality: weight of the decoder's correlations.

    Raises:
        InputError: a number is out of range.

    Example:
        >>> import torch
        >>> from omnitraining import LEO
        >>> algorithm = LEO(latents=4)
        >>> support, labels = torch.rand(1, 4, 8), torch.tensor([[0, 0, 1, 1]])
        >>> classifier = algorithm.fit(algorithm.head(8, 2).eval(), support, labels, ways=2)
        >>> classifier(torch.rand(1, 3, 8)).shape  # logits [T, Q, N]
        torch.Size([1, 3, 2])
    """

    latents: int = 64
    steps: int = 5
    lr: float = 1.0
    fine_steps: int = 5
    fine_lr: float = 0.001
    dropout: float = 0.3
    normalize: bool = True
    kl_weight: float = 0.001
    encoder_penalty: float = 1e-9
    orthogonality: float = 0.001

    def __post_init__(self) -> None:
        check_least("metatraining", self, 1, "latents")
        check_least("metatraining", self, 0, "steps", "fine_steps")
        check_positive("metatraining", self, "lr", "fine_lr")
        check_proper_part("metatraining", self, "dropout")
        check_least("metatraining", self, 0, "kl_weight", "encoder_penalty", "orthogonality")

    def head(self, features: int, outputs: int) -> nn.Module:
        """`LatentCodes`; they can be of any number of classes."""
        return LatentCodes(features, self.latents, outputs, self.dropout, self.lr, self.fine_lr)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [T, Q, N] against class indices [T, Q]."""
        return cross_entropy(outputs, targets)

    def outputs_and_loss(
        self, network: Network, episode: Episode, batch: MiniBatch
    ) -> tuple[Tensor, Tensor]:
        """Logits [T, Q, N], and their loss with all regularizers."""
        embedded = episode.with_inputs(network.backbone(episode.inputs()))
        head = cast(LatentCodes, network.head)
        with torch.autocast(embedded.query_x.device.type, enabled=False):
            adapted = self._adapted(head, embedded.support_x, episode.support_y, episode.ways)
            query = at_least_float32(embedded.query_x)
            outputs = LinearClassifier(adapted.weight, normalize=self.normalize)(query)
            loss = self.loss(outputs, episode.query_y)
            loss = loss + self.kl_weight * adapted.divergence
            loss = loss + self.encoder_penalty * adapted.drift
            loss = loss + self.orthogonality * head.orthogonality()
        return outputs, loss

    def predict(self, network: Network, episode: Episode) -> Tensor:
        """Logits [T, Q, N]."""
        return self.outputs_of_heads(network, episode, TASKS_AT_ONCE)

    def fit(self, head: nn.Module, support: Tensor, labels: Tensor, ways: int) -> nn.Module:
        """The decoded linear classifiers."""
        with torch.autocast(support.device.type, enabled=False):
            weight = self._adapted(cast(LatentCodes, head), support, labels, ways).weight
        return LinearClassifier(weight, normalize=self.normalize)

    def _adapted(self, head: LatentCodes, support: Tensor, labels: Tensor, ways: int) -> Adapted:
        x = at_least_float32(support)
        x = F.normalize(x, dim=-1) if self.normalize else x
        adapted: Adapted = head(x, labels, ways, self.steps, self.fine_steps)
        return adapted
