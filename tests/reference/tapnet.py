"""TapNet on one task: the null space by a full singular value decomposition, query by query."""

import torch
from torch import Tensor


def unit(v: Tensor) -> Tensor:
    return v / (v * v).sum() ** 0.5


def logits(
    references: Tensor, support: Tensor, labels: Tensor, query: Tensor, scale: float
) -> Tensor:
    """[Q, N] of one task whose class n has row n of the references [N, D]."""
    ways = len(references)
    errors = []
    for n in range(ways):
        others = [references[m] for m in range(ways) if m != n]
        members = [x for x, y in zip(support, labels.tolist(), strict=True) if y == n]
        modified = references[n] - sum(others) / len(others)
        errors.append(unit(modified) - unit(sum(members) / len(members)))
    with torch.no_grad():  # the projection is a constant
        _, values, right = torch.linalg.svd(torch.stack(errors), full_matrices=True)
        basis = right[int((values > 1e-13).sum()) :].T  # of the null space, [D, D - N]
    rows = [
        torch.stack([-scale * ((x @ basis - phi @ basis) ** 2).sum() for phi in references])
        for x in query
    ]
    return torch.stack(rows)


@torch.no_grad()
def matched(references: Tensor, prototypes: Tensor) -> list[int]:
    """A reference for each prototype: the nearest pair first, then the nearest of the others."""
    pairs = sorted(
        (float(((c - phi) ** 2).sum()), n, r)
        for n, c in enumerate(prototypes)
        for r, phi in enumerate(references)
    )
    found: dict[int, int] = {}
    for _, n, r in pairs:
        if n not in found and r not in found.values():
            found[n] = r
    return [found[n] for n in range(len(prototypes))]
