"""Scores for the detection of queries of unknown classes; the library uses the first.

All are high for queries of known classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Score = Callable[[Tensor, Tensor, int], Tensor]
"""Class means [T, N, D], queries [T, Q, D], both of features of length 1, and shots; to [T, Q]."""

SCALE = 10.0  # of cosines, as the meta-flow of the shipped model has it
RIDGE = 0.1  # share of a multiple of the identity in each covariance


def scores(features: Tensor, labels: Tensor) -> dict[str, Score]:
    """The scores by name; two use statistics of training images.

    Args:
        features: of training images, of length 1 [M, D].
        labels: their classes [M].
    """
    within, between, mean = covariances(features.double(), labels)
    whitened = torch.linalg.cholesky(torch.linalg.inv(within))
    return {
        "cosine to the nearest class mean": lambda s, q, _: cosines(s, q).amax(-1),
        "the same, less that to the second": lambda s, q, _: _margin(cosines(s, q)),
        "its softmax over classes": lambda s, q, _: (SCALE * cosines(s, q)).softmax(-1).amax(-1),
        "energy": lambda s, q, _: (SCALE * cosines(s, q)).logsumexp(-1),
        "standardized distance": lambda s, q, shots: (
            -torch.cdist(q @ whitened, s @ whitened).amin(-1) / (1 + 1 / shots) ** 0.5
        ),
        "likelihood ratio": lambda s, q, shots: likelihood_ratio(
            s - mean, q - mean, shots, within, between
        ).amax(-1),
    }


def covariances(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance within classes and between their means [D, D], and the mean of these [D]."""
    counts = labels.bincount()
    means = torch.zeros(len(counts), features.shape[1], dtype=features.dtype)
    means = means.index_add(0, labels, features) / counts.unsqueeze(1)
    rest, centered = features - means[labels], means - means.mean(0)
    within = rest.T @ rest / (len(rest) - len(counts))
    between = centered.T @ centered / (len(counts) - 1) - within / counts.double().mean()
    return _with_ridge(within), _with_ridge(between), means.mean(0)


def _with_ridge(covariance: Tensor) -> Tensor:
    size = len(covariance)
    level = covariance.trace() / size
    return (1 - RIDGE) * covariance + RIDGE * level * torch.eye(size, dtype=covariance.dtype)


def cosines(means: Tensor, queries: Tensor) -> Tensor:
    """[T, Q, N]."""
    return F.normalize(queries, dim=-1) @ F.normalize(means, dim=-1).mT


def _margin(found: Tensor) -> Tensor:
    first, second = found.topk(2, -1).values.unbind(-1)
    return first - second


def likelihood_ratio(
    means: Tensor, queries: Tensor, shots: int, within: Tensor, between: Tensor
) -> Tensor:
    """How much likelier a query is in each class than in a new one, as a logarithm [T, Q, N].

    Classes are normal with one covariance, and so are their means (probabilistic linear
    discriminant analysis, Ioffe 2006).
    """
    root = torch.linalg.inv(torch.linalg.cholesky(within))
    spread, axes = torch.linalg.eigh(root @ between @ root.T)
    spread = spread.clamp_min(1e-3)
    s, q = (x @ root.T @ axes for x in (means, queries))
    # In these axes the variance within classes is 1 and that between them is the spread.
    left = spread / (1 + shots * spread)  # of the mean of a class, given its support set
    expected = shots * left * s
    known, new = 1 + left, 1 + spread
    squares = (
        (q.square() @ (1 / known)).unsqueeze(-1)
        - 2 * (q / known) @ expected.mT
        + (expected.square() @ (1 / known)).unsqueeze(-2)
    )
    of_class = -(squares + known.log().sum()) / 2
    of_new = -(q.square() @ (1 / new) + new.log().sum()) / 2
    return of_class - of_new.unsqueeze(-1)
