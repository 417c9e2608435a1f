"""A few-shot regression of curves with the methods of scikit-learn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
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
from omnitraining.precision import float32_on_cpu
from omnitraining.pretraining import L2Regression


class FewShotRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Continues a curve from a few of its points: every flow adapts to them by gradient steps.

    Args:
        model: a trained model of curves: run folder, file that a learner saved, or name on the
            Hugging Face hub.
        flow: the flow that predicts, "pre", "joint" or "meta", or "ensemble", the mean of all.
            None is the vote that the run was judged by.
        steps: gradient steps on the points; as many as the run was judged with if None.

    Options that are changed after a fit count from the next fit on; until then the learner
    predicts, and is saved and copied, as it was fitted.

    Attributes:
        networks_: the adapted network of each flow, by name.
        weights_: of the flows in the vote.
    """

    def __init__(self, model: Source, flow: str | None = None, steps: int | None = None) -> None:
        self.model, self.flow, self.steps = model, flow, steps

    @float32_on_cpu()
    def fit(self, X: ArrayLike, y: ArrayLike) -> "FewShotRegressor":  # noqa: N803
        """Adapt to the points of a new curve.

        Args:
            X: inputs [S] or [S, 1].
            y: values [S] or [S, 1].

        Raises:
            InputError: their lengths differ, they are no numbers, or the model is of images.
        """
        trained = find(self.model)
        points = _points(X, "x"), _points(y, "y")
        self._made = _adapted(trained, self.flow, self.steps, *points, np.ndim(y) == 1)
        return self

    @torch.no_grad()
    @float32_on_cpu()
    def predict(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Values at inputs [Q] or [Q, 1], in the shape in which values were given."""
        check_is_fitted(self)
        made = self._made  # read once: another thread may fit
        x = _points(X, "x").to(made.trained.device)
        vote = sum(weight * made.networks[flow](x) for flow, weight in made.weights.items())
        values: NDArray[np.float64] = cast(Tensor, vote).double().cpu().numpy()
        if not np.isfinite(values).all():
            raise InputError(
                f"{made.trained.name} answers with values that are not finite: fit with fewer "
                "steps; if none are, the model is damaged"
            )
        return values[:, 0] if made.flat else values

    def save(self, path: Path | str) -> None:
        """Write the model and the points to one file (safetensors; no pickle).

        A learner that was fitted is written as it was fitted, with the options that it had then.
        """
        if not self.__sklearn_is_fitted__():
            fit = {"flow": self.flow, "steps": self.steps}
            save_file(Path(path), find(self.model).to_bytes({}, fit))
            return
        made = self._made
        fit = {"flow": made.flow, "steps": made.steps, "flat": made.flat}
        tensors = {"support.x": made.x, "support.y": made.y}
        save_file(Path(path), made.trained.to_bytes(tensors, fit))

    @classmethod
    @float32_on_cpu()
    def _restored(
        cls, trained: Trained, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "FewShotRegressor":
        checks.choices(facts, trained.model.trained_flows)
        made = cls(trained, facts.get("flow"), facts.get("steps"))
        points = (torch.float32, (1,))
        kept = checks.support(tensors, {"support.x": points, "support.y": points})
        if kept:
            xs, ys = kept["support.x"], kept["support.y"]
            made._made = _adapted(trained, made.flow, made.steps, xs, ys, bool(facts["flat"]))
        return made

    @property
    def networks_(self) -> dict[str, nn.Module]:
        """The adapted network of each flow, by name."""
        return self._attribute("networks_").networks

    @property
    def weights_(self) -> dict[str, float]:
        """Weights of the flows in the vote."""
        return self._attribute("weights_").weights

    def _attribute(self, name: str) -> "_Adapted":
        if not self.__sklearn_is_fitted__():
            raise AttributeError(f"{type(self).__name__} has no {name} before it is fitted")
        return self._made

    def __sklearn_is_fitted__(self) -> bool:
        return "_made" in self.__dict__


@dataclass(frozen=True)
class _Adapted:
    """What one fit made; a learner replaces it as a whole."""

    trained: Trained
    flow: str | None
    steps: int | None
    x: Tensor
    y: Tensor
    flat: bool
    networks: dict[str, nn.Module]
    weights: dict[str, float]

    def __reduce__(self) -> tuple[Any, ...]:
        return _adapted, (self.trained, self.flow, self.steps, self.x, self.y, self.flat)


def _adapted(
    trained: Trained, flow: str | None, steps: int | None, x: Tensor, y: Tensor, flat: bool
) -> _Adapted:
    """Adapt the flows that vote to the points x and y [S, 1].

    Raises:
        InputError: their lengths differ, options are wrong, or the model is of images.
    """
    if len(x) != len(y):
        raise InputError(f"there are {len(x)} inputs and {len(y)} values: give one per input")
    if trained.inputs is not None:
        raise InputError(f"{trained.name} is a model of images: it cannot continue curves")
    if steps is not None and not (isinstance(steps, Integral) and steps >= 0):
        raise InputError(f"steps is {steps}: it must be 0 or more, a whole number")
    votes = cast(CurveVotes, trained.votes)
    count = votes.steps if steps is None else int(steps)
    head, _, flows = flows_of(trained, flow)
    equal = dict.fromkeys(flows, 1 / len(flows))
    weights = equal if head in (*flows, ENSEMBLE) else votes.vote(len(x), count)
    networks: dict[str, nn.Module] = {}
    for name in weights:
        _, network, algorithm = trained.model.heads_of(name)[0]
        if not isinstance(algorithm, L2Regression | MAML):
            raise InputError(f"{type(algorithm).__name__} does not adapt to curves")
        sets = x.to(trained.device), y.to(trained.device)
        made = replace(algorithm, steps=count).adapt(network, *sets)
        networks[name] = made
    return _Adapted(trained, flow, steps, x, y, flat, networks, weights)


def _points(values: ArrayLike, name: str) -> Tensor:
    """Numbers [S, 1]."""
    if isinstance(values, Tensor):
        # bfloat16 is not known to numpy
        values = (values.float() if values.is_floating_point() else values).numpy(force=True)
    if np.ma.isMaskedArray(values) and np.ma.is_masked(values):
        raise InputError(f"{name} has masked values: leave them out")
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} is lists of different lengths: give numbers [S]") from error
    if found.dtype.kind not in "iuf" or found.ndim not in (1, 2) or found[:1].size != 1:
        raise InputError(
            f"{name} is {found.dtype} {list(found.shape)}: give numbers [S] or [S, 1], one or more"
        )
    if not np.isfinite(found).all():
        raise InputError(f"{name} holds values that are no numbers (nan) or not finite")
    return torch.from_numpy(found.astype(np.float32)).view(-1, 1)
