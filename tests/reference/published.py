"""Forward passes of one task in the form of the papers, on whole tensors of torch's own layers.

EasyFSL and others compute them so. `matchingnet` and `relationnet` here are loops over samples.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def prototypical(support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    """Scores -d(f(x), c_n)^2 [Q, N] with prototypes c_n (Snell et al. 2017, eq. 1-2)."""
    prototypes = torch.stack([support[labels == n].mean(0) for n in labels.unique()])
    return -torch.cdist(query, prototypes).square()


def matching(
    encoder: nn.LSTM,
    attention: nn.LSTMCell,
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    scale: float,
) -> Tensor:
    """Log-probabilities [Q, N] with full-context embeddings (Vinyals et al. 2016, appendix A).

    The support set is encoded in the order in which it is given. The attention kernel is a softmax
    over scale * relu(cosine), as in CloserLookFewShot.
    """
    forward, backward = encoder(support)[0].chunk(2, -1)
    context = support + forward + backward  # g(x_i), A.2
    hidden, cell = query, torch.zeros_like(query)
    for _ in range(len(support)):  # f(x), A.1
        read = torch.softmax(hidden @ context.T, -1) @ context
        output, cell = attention(torch.cat([query, read], -1), (hidden, cell))
        hidden = output + query
    cosines = F.cosine_similarity(hidden[:, None], context[None], dim=-1)
    weights = torch.softmax(scale * cosines.relu(), -1)
    return (weights @ F.one_hot(labels).to(weights) + 1e-6).log()


def relation(module: nn.Module, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
    """Relation scores [Q, N] of maps [S, C, H, W] and [Q, C, H, W] (Sung et al. 2018, eq. 1)."""
    prototypes = torch.stack([support[labels == n].mean(0) for n in labels.unique()])
    pairs = [torch.cat([prototypes, x.expand_as(prototypes)], 1) for x in query]
    return torch.stack([module(pair)[:, 0] for pair in pairs]).sigmoid()
