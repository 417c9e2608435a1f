"""A few-shot regression of curves with the methods of scikit-learn."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin  # type: ignore[import-untyped]
from sklearn.utils.validation import check_is_fitted  # type: ignore[import-untyped]
from torch import Tensor, nn

from omnitraining.errors import InputError
from omnitraining.evaluation import ENSEMBLE
from omnitraining.learner import checks
from omnitraining.learner.curves import CurveVotes
from omnitraining.learner.fitting import flows_of
from omnitraining.learner.sources import Source, find
from omnitraining.learner.trained import Trained, save_file
from omnitraining.metatraining import MAML
from omnitraining.pretraining import L2Regression
from omnitraining.tasks.classification.problem import new_heads


class FewShotRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Continues a curve from a few of its points: every flow adapts to them by gradient steps.

    Args:
        model: a trained model of curves: run folder, file that a learner saved, or name on the
            Hugging Face hub.
        flow: the flow that predicts, "pre", "joint" or "meta", or "ensemble", the mean of all.
            None is the vote that the run was judged by.
        steps: gradient steps on the points; as many as the run was judged with if None.

    Attributes:
        networks_: the adapted network of each flow, by name.
        weights_: of the flows in the vote.
    """

    def __init__(self, model: Source, flow: str | None = None, steps: int | None = None) -> None:
        self.model, self.flow, self.steps = model, flow, steps

    def fit(self, X: ArrayLike, y: ArrayLike) -> "FewShotRegressor":  # noqa: N803
        """Adapt to the points of a new curve.

        Args:
            X: inputs [S] or [S, 1].
            y: values [S] or [S, 1].

        Raises:
            InputError: their lengths differ, they are no numbers, or the model is of images.
        """
        trained = find(self.model)
        self._fit(trained, _points(X, "x"), _points(y, "y"))
        self._flat = np.ndim(y) == 1
        return self

    @torch.no_grad()
    def predict(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Values at inputs [Q] or [Q, 1], in the shape in which values were given."""
        check_is_fitted(self)
        x = _points(X, "x").to(self._trained.device)
        vote = sum(weight * self.networks_[flow](x) for flow, weight in self.weights_.items())
        values: NDArray[np.float64] = cast(Tensor, vote).double().cpu().numpy()
        if not np.isfinite(values).all():
            raise InputError(
                f"{self._trained.name} answers with values that are not finite: fit with fewer "
                "steps; if none are, the model is damaged"
            )
        return values[:, 0] if self._flat else values

    def save(self, path: Path | str) -> None:
        """Write the model and the points to one file (safetensors; no pickle)."""
        trained, tensors, fit = find(self.model), {}, {"flow": self.flow, "steps": self.steps}
        if hasattr(self, "networks_"):
            trained, tensors = self._trained, {"support.x": self._x, "support.y": self._y}
            fit["flat"] = self._flat
        save_file(Path(path), trained.to_bytes(tensors, fit))

    @classmethod
    def _restored(
        cls, trained: Trained, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "FewShotRegressor":
        checks.choices(facts, trained.model.trained_flows)
        made = cls(trained, facts.get("flow"), facts.get("steps"))
        points = (torch.float32, (1,))
        kept = checks.support(tensors, {"support.x": points, "support.y": points})
        if kept:
            made._flat = bool(facts["flat"])
            made._fit(trained, kept["support.x"], kept["support.y"])
        return made

    def _fit(self, trained: Trained, x: Tensor, y: Tensor) -> None:
        if len(x) != len(y):
            raise InputError(f"there are {len(x)} inputs and {len(y)} values: give one per input")
        if trained.inputs is not None:
            raise InputError(f"{trained.name} is a model of images: it cannot continue curves")
        votes = cast(CurveVotes, trained.votes)
        steps = votes.steps if self.steps is None else self.steps
        if steps < 0:
            raise InputError(f"steps is {steps}: it must be 0 or more")
        head, _, flows = flows_of(trained, self.flow)
        equal = dict.fromkeys(flows, 1 / len(flows))
        weights = equal if head in (*flows, ENSEMBLE) else votes.vote(len(x), steps)
        networks: dict[str, nn.Module] = {}
        for flow in weights:
            name, algorithm = new_heads(trained.model, flow, trained.inference)[-1]
            if not isinstance(algorithm, L2Regression | MAML):
                raise InputError(f"{type(algorithm).__name__} does not adapt to curves")
            sets = x.to(trained.device), y.to(trained.device)
            adapted = replace(algorithm, steps=steps).adapt(trained.model.network(name), *sets)
            networks[flow] = adapted
        self.networks_, self.weights_ = networks, weights
        self._trained, self._x, self._y = trained, x, y

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("networks_", None)  # they are made of the rest
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_x" in state:
            self._fit(self._trained, self._x, self._y)


def _points(values: ArrayLike, name: str) -> Tensor:
    """Numbers [S, 1]."""
    found = np.asarray(values.numpy(force=True) if isinstance(values, Tensor) else values)
    if found.dtype.kind not in "iuf" or found.ndim not in (1, 2) or found[:1].size != 1:
        raise InputError(
            f"{name} is {found.dtype} {list(found.shape)}: give numbers [S] or [S, 1], one or more"
        )
    if not np.isfinite(found).all():
        raise InputError(f"{name} holds values that are no numbers (nan) or not finite")
    return torch.from_numpy(found.astype(np.float32)).view(-1, 1)
