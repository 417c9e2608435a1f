"""A few-shot regression of curves with the methods of scikit-learn."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin  # type: ignore[import-untyped]
from sklearn.utils.validation import check_is_fitted  # type: ignore[import-untyped]
from torch import Tensor, nn

from omnitraining.errors import InputError
from omnitraining.evaluation import ensemble_mean
from omnitraining.learner import checks
from omnitraining.learner.ensemble import resolve_flow
from omnitraining.learner.sources import Source, find
from omnitraining.learner.trained import TrainedModel, save_file
from omnitraining.metatraining import MAML, Reptile
from omnitraining.precision import float32_on_cpu
from omnitraining.pretraining import L2Regression


class FewShotRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Few-shot regression of a curve: every flow adapts to a few points by gradient steps.

    Args:
        model: a trained model of curves: run folder, file that a learner saved, or name on the
            Hugging Face hub.
        flow: the flow that predicts, "pre", "joint" or "meta", or "ensemble", the mean of all.
            None is the ensemble that the run was evaluated with.
        steps: gradient steps on the points; if None, the number that the run was evaluated with.

    Options that are changed after a fit have effect from the next fit on; until then the learner
    predicts, and is saved and copied, as it was fitted.

    Attributes:
        networks_: the adapted network of each flow, by name.
        weights_: ensemble weight of each flow.

    Example:
        >>> from omnitraining import FewShotRegressor
        >>> learner = FewShotRegressor("runs/waves").fit([0.0, 1.0], [0.2, 0.9])  # doctest: +SKIP
        >>> learner.predict([0.5]).shape  # doctest: +SKIP
        (1,)
    """

    def __init__(self, model: Source, flow: str | None = None, steps: int | None = None) -> None:
        """Keep the options; the model is loaded by `fit`."""
        self.model, self.flow, self.steps = model, flow, steps

    @float32_on_cpu()
    def fit(self, X: ArrayLike, y: ArrayLike) -> "FewShotRegressor":  # noqa: N803
        """Adapt to the points of a new curve.

        Args:
            X: inputs [S] or [S, 1].
            y: values [S] or [S, 1].

        Raises:
            InputError: their lengths differ, they are not numbers, or the model is of images.
        """
        trained = find(self.model)
        points = _points(X, "x"), _points(y, "y")
        self._fit = _adapt(trained, self.flow, self.steps, *points, np.ndim(y) == 1)
        return self

    @torch.no_grad()
    @float32_on_cpu()
    def predict(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Values of the curve, [Q] or [Q, 1] as the values of the fit were.

        Args:
            X: inputs [Q] or [Q, 1].

        Raises:
            InputError: inputs are not numbers, or a predicted value is not finite.
        """
        check_is_fitted(self)
        fit = self._fit  # read once: another thread may fit
        x = _points(X, "x").to(fit.trained.device)
        outputs = {flow: network(x) for flow, network in fit.networks.items()}
        values: NDArray[np.float64]
        values = ensemble_mean(outputs, fit.weights).double().cpu().numpy()
        if not np.isfinite(values).all():
            raise InputError(
                f"{fit.trained.name} predicts values that are not finite: fit with fewer steps; if "
                "that does not help, the model is damaged"
            )
        return values[:, 0] if fit.flat else values

    def save(self, path: Path | str) -> None:
        """Write the model and the points to one file (safetensors; no pickle).

        A fitted learner is written as it was fitted, with its options at that time.

        Args:
            path: the file.

        Raises:
            InputError: the file cannot be written.
        """
        if not self.__sklearn_is_fitted__():
            options = {"flow": self.flow, "steps": self.steps}
            save_file(Path(path), find(self.model).to_bytes({}, options))
            return
        fit = self._fit
        options = {"flow": fit.flow, "steps": fit.steps, "flat": fit.flat}
        tensors = {"support.x": fit.x, "support.y": fit.y}
        save_file(Path(path), fit.trained.to_bytes(tensors, options))

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:  # noqa: N803 (of scikit-learn)
        text = str(super().__repr__(N_CHAR_MAX))
        if not self.__sklearn_is_fitted__():
            return text
        return f"<{text}, fitted to {len(self._fit.x)} points>"

    @classmethod
    @float32_on_cpu()
    def _restored(
        cls, trained: TrainedModel, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> "FewShotRegressor":
        """A learner from the parts of its file."""
        checks.options(facts, trained.model.trained_flows)
        learner = cls(trained, facts.get("flow"), facts.get("steps"))
        points = (torch.float32, (1,))
        kept = checks.support(tensors, {"support.x": points, "support.y": points})
        if kept:
            xs, ys = kept["support.x"], kept["support.y"]
            flat = bool(facts["flat"])
            learner._fit = _adapt(trained, learner.flow, learner.steps, xs, ys, flat)
        return learner

    @property
    def networks_(self) -> dict[str, nn.Module]:
        """The adapted network of each flow, by name."""
        return self._attribute("networks_").networks

    @property
    def weights_(self) -> dict[str, float]:
        """Ensemble weight of each flow, by name."""
        return self._attribute("weights_").weights

    def _attribute(self, name: str) -> "_Adapted":
        if not self.__sklearn_is_fitted__():
            raise AttributeError(f"{type(self).__name__} has no {name} before it is fitted")
        return self._fit

    def __sklearn_is_fitted__(self) -> bool:
        return "_fit" in self.__dict__


@dataclass(frozen=True)
class _Adapted:
    """The result of one fit; a learner replaces it as a whole."""

    trained: TrainedModel
    flow: str | None
    steps: int | None
    x: Tensor
    y: Tensor
    flat: bool
    networks: dict[str, nn.Module]
    weights: dict[str, float]

    def __reduce__(self) -> tuple[Any, ...]:
        return _adapt, (self.trained, self.flow, self.steps, self.x, self.y, self.flat)


def _adapt(
    trained: TrainedModel, flow: str | None, steps: int | None, x: Tensor, y: Tensor, flat: bool
) -> _Adapted:
    """Adapt the flows of the ensemble to the points x and y [S, 1].

    Raises:
        InputError: their lengths differ, options are wrong, or the model is of images.
    """
    if len(x) != len(y):
        raise InputError(f"there are {len(x)} inputs and {len(y)} values: give one per input")
    measured = trained.curve_weights
    if steps is not None and not (isinstance(steps, Integral) and steps >= 0):
        raise InputError(f"steps is {steps}: it must be 0 or more, a whole number")
    count = measured.steps if steps is None else int(steps)
    ensemble = resolve_flow(trained, flow)
    weights = ensemble.curve_weights(len(x), count)
    points = x.to(trained.device), y.to(trained.device)
    networks: dict[str, nn.Module] = {}
    for name in weights:
        _, network, algorithm = trained.model.heads_of(name)[0]
        if not isinstance(algorithm, L2Regression | MAML | Reptile):
            raise InputError(f"{type(algorithm).__name__} does not adapt to curves")
        adapted = replace(algorithm, steps=count).adapt(network, *points)
        networks[name] = adapted
    return _Adapted(trained, flow, steps, x, y, flat, networks, weights)


def _points(values: ArrayLike, name: str) -> Tensor:
    """Numbers [S, 1]."""
    if isinstance(values, Tensor):
        # numpy has no bfloat16
        values = (values.float() if values.is_floating_point() else values).numpy(force=True)
    if np.ma.isMaskedArray(values) and np.ma.is_masked(values):
        raise InputError(f"{name} has masked values: leave them out")
    try:
        points = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{name} is lists of different lengths: give numbers [S]") from error
    if points.dtype.kind not in "iuf" or points.ndim not in (1, 2) or points[:1].size != 1:
        raise InputError(
            f"{name} is {points.dtype} {list(points.shape)}: give numbers [S] or [S, 1], S > 0"
        )
    if not np.isfinite(points).all():
        raise InputError(f"{name} holds values that are no numbers (nan) or not finite")
    return torch.from_numpy(points.astype(np.float32)).view(-1, 1)
