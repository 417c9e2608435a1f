"""Matching networks with full context embeddings, one task, one query, one support sample a time.

g(x_i) = f(x_i) + forward and backward LSTM; the query LSTM attends to all g(x_i) at every step
(Vinyals et al. 2016, appendix A); 100 relu(cosine) as in CloserLookFewShot.
"""

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def log_probabilities(
    read_support: nn.LSTM,
    read_query: nn.LSTMCell,
    support: Tensor,
    labels: Tensor,
    query: Tensor,
    ways: int,
    scale: float,
    steps: int | None,
    as_given: bool = False,
) -> Tensor:
    """[Q, N] of one task."""
    order = list(range(len(support))) if as_given else canonical_order(support, labels, ways)
    given = [support[i] for i in order]
    context = embed_support(read_support, given)
    rows = []
    for x in query:
        hidden, cell = x, torch.zeros_like(x)
        for _ in range(steps or len(context)):
            scores = [float(hidden @ g) for g in context]
            parts = [math.exp(score - max(scores)) for score in scores]
            read = sum(part / sum(parts) * g for part, g in zip(parts, context, strict=True))
            hidden, cell = lstm_step(
                read_query.weight_ih, read_query.weight_hh, read_query.bias_ih, read_query.bias_hh,
                torch.cat([x, read]), hidden, cell,
            )  # fmt: skip
            hidden = hidden + x
        cosines = [float(hidden @ g / (hidden.norm() * g.norm())) for g in context]
        parts = [math.exp(scale * max(cosine, 0.0) - scale) for cosine in cosines]
        row = [0.0] * ways
        for part, i in zip(parts, order, strict=True):
            row[int(labels[i])] += part / sum(parts)
        rows.append([math.log(p + 1e-6) for p in row])
    return torch.tensor(rows)


def canonical_order(support: Tensor, labels: Tensor, ways: int) -> list[int]:
    """Classes by their mean agreement with the mean support sample, and so their samples."""
    middle = sum(support) / len(support)
    agreement = [float(x @ middle) for x in support]
    members = [[i for i, y in enumerate(labels.tolist()) if y == n] for n in range(ways)]
    members.sort(key=lambda chosen: sum(agreement[i] for i in chosen) / len(chosen))
    return [i for chosen in members for i in sorted(chosen, key=lambda i: agreement[i])]


def embed_support(lstm: nn.LSTM, samples: list[Tensor]) -> list[Tensor]:
    """Each sample plus what both directions of the LSTM put out at its place."""
    found = [x.clone() for x in samples]
    for suffix, places in (("", range(len(samples))), ("_reverse", range(len(samples))[::-1])):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(lstm, f"{name}_l0{suffix}") for name in names]
        hidden = cell = torch.zeros_like(samples[0])
        for place in places:
            hidden, cell = lstm_step(*weights, samples[place], hidden, cell)
            found[place] = found[place] + hidden
    return found


def lstm_step(
    w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, x: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: input, forget, cell and output gates, in torch's order."""
    i, f, g, o = (w_ih @ x + b_ih + w_hh @ hidden + b_hh).chunk(4)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell
