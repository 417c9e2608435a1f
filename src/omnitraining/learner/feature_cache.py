"""Features of images that a learner has embedded, so that a further fit does not embed them again.

A frozen backbone takes nearly all the time of a fit, and the same images come back when options
are changed or a class is added.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from omnitraining.learner.ensemble import Ensemble
from omnitraining.learner.fitting import embed


class FeatureCache:
    """Features by the hash of an image's pixels, of one frozen backbone.

    It holds the images of the last fit only, so that it is no larger than the support set.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._model: object = None
        self._rows: dict[bytes, dict[str, Tensor]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureCache, ()

    def embed(
        self, ensemble: Ensemble, batches: Iterable[Tensor], keep: bool = False
    ) -> dict[str, Tensor]:
        """As `omnitraining.learner.fitting.embed`; only new images are embedded.

        Args:
            ensemble: the flows.
            batches: uint8 [B, C, H, W].
            keep: keep the images of earlier calls too.
        """
        if self._model is not ensemble.trained.model:
            self._model, self._rows = ensemble.trained.model, {}
        known, used = self._rows, list[dict[str, Tensor]]()
        fresh = dict[bytes, dict[str, Tensor]]()
        for pixels in batches:
            keys = [hashlib.sha256(image.numpy()).digest() for image in pixels]
            new = {k: i for i, k in enumerate(keys) if k not in known and k not in fresh}
            if new:
                kept = embed(ensemble, [pixels[[*new.values()]]])
                for row, key in enumerate(new):
                    fresh[key] = {name: values[row] for name, values in kept.items()}
            for key in keys:
                fresh.setdefault(key, known.get(key, {}))
                used.append(fresh[key])
        self._rows = {**known, **fresh} if keep else fresh
        return {name: torch.stack([row[name] for row in used]) for name in used[0]}
