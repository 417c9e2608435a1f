"""The result of one fit of a classifier, in one object that never changes."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.learner.calibration import Calibration, unmeasured
from omnitraining.learner.ensemble import Ensemble, resolve_flow
from omnitraining.learner.fitting import Support, fit_predictor
from omnitraining.learner.held_out import FitReport, Predictions, held_out, predictions
from omnitraining.learner.image_data import kind_of
from omnitraining.learner.predictor import Predictor
from omnitraining.learner.sources import Source
from omnitraining.learner.support_calibration import domain_calibration, support_calibration
from omnitraining.learner.trained import TrainedModel
from omnitraining.precision import float32_on_cpu


@dataclass(frozen=True)
class Options:
    """Options of a `FewShotClassifier` at its fit; later changes of the learner leave them.

    Args:
        source: its ``model``.
        flow: the flow that predicts.
        accept_rate: share of the images of known classes that are accepted.
        reject_label: label of the others.
    """

    source: Source
    flow: str | None
    accept_rate: float | None
    reject_label: Any


def current_accept_rate(accept_rate: float | None, reject: float | None) -> float | None:
    """The value of ``accept_rate``, which may be given by its former name ``reject``.

    Warns:
        FutureWarning: it is given by its former name.

    Raises:
        InputError: both are given.
    """
    if reject is None:
        return accept_rate
    if accept_rate is not None:
        raise InputError("reject is the former name of accept_rate: give accept_rate alone")
    warnings.warn("reject is called accept_rate now", FutureWarning, stacklevel=3)
    return reject


@dataclass(frozen=True)
class FitResult:
    """Classes, their predictor, and the support set that both were made of.

    A learner replaces it as a whole, so that another thread never reads parts of two fits.

    Attributes:
        ensemble: the flows that predict.
        options: of the fit.
        support: the support set, its labels numbered.
        labels: of the support images.
        classes: the labels, sorted.
        predictor: its columns are the classes.
        calibration: of the predictor, at the shots of the support set.
        threshold: similarity from which an image is accepted; None if all are.
        held_out: predictions of support images held out in turn, if that can be done.
    """

    ensemble: Ensemble
    options: Options
    support: Support
    labels: NDArray[Any]
    classes: NDArray[Any]
    predictor: Predictor
    calibration: Calibration
    threshold: float | None
    held_out: Predictions | None

    @property
    def trained(self) -> TrainedModel:
        """The model."""
        return self.ensemble.trained

    def __reduce__(self) -> tuple[Any, ...]:
        return fit_support, (self.trained, self.options, dict(self.support.kept), self.labels)

    @cached_property
    def report(self) -> FitReport:
        """Accuracy, confidence and similarity of support images that are held out in turn."""
        with float32_on_cpu():
            return held_out(self.ensemble, self.support, self.held_out)

    @property
    def counts(self) -> dict[Any, int]:
        """Support images by label."""
        counts = self.support.labels.bincount()
        return dict(zip(self.classes.tolist(), counts.tolist(), strict=True))

    def to_labels(
        self, probabilities: NDArray[np.float64], similarity: NDArray[np.float64]
    ) -> NDArray[Any]:
        """Labels [B] of probabilities [B, N] and similarities [B]."""
        labels: NDArray[Any] = self.classes[probabilities.argmax(1)]
        if self.threshold is None:
            return labels
        accepted = similarity >= self.threshold
        if self.options.reject_label is not None:
            return np.where(accepted, labels, np.asarray(self.options.reject_label))
        with_none = labels.astype(object)
        with_none[~accepted] = None
        return with_none


@float32_on_cpu()
def fit_support(
    trained: TrainedModel, options: Options, kept: Mapping[str, Tensor], labels: NDArray[Any]
) -> FitResult:
    """Fit a predictor on what is kept of a support set.

    Raises:
        InputError: there are fewer than two classes, options are wrong, or the model cannot predict
            this many classes.
    """
    accept_rate = options.accept_rate
    if accept_rate is not None and not (isinstance(accept_rate, Real) and 0 < accept_rate < 1):
        raise InputError(f"accept_rate is {accept_rate!r}: it must be above 0 and below 1, as 0.95")
    classes, indices = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        images, only = f"the images ({len(labels)})", repr(classes.tolist()[0])
        raise InputError(f"{images} are all of one class, {only}: give two classes or more")
    _check_reject_label(options.reject_label, classes)
    support = Support(kept, torch.from_numpy(indices.astype(np.int64)), len(classes))
    ensemble = resolve_flow(trained, options.flow)
    found = predictions(ensemble, support)
    calibrated = _calibrated(ensemble, support, found)
    if trained.frozen:  # it has no other calibration, so the report uses this one
        ensemble = calibrated
    trained = calibrated.trained
    threshold = None
    if accept_rate is not None:
        if trained.frozen and not trained.calibration.similarity:
            raise InputError(
                f"accept_rate is measured on the support images of {trained.name}: give two images "
                "of a class, or leave it out"
            )
        if ensemble.head not in trained.calibration.similarity:
            raise InputError(
                f"accept_rate needs features that are not adapted, and {ensemble} adapts them: "
                "leave it out or choose another flow"
            )
        threshold = trained.calibration.threshold(calibrated.head, support.shots, accept_rate)
    predictor = fit_predictor(calibrated, support)
    calibration = trained.calibration
    return FitResult(
        ensemble, options, support, labels, classes, predictor, calibration, threshold, found
    )


def _calibrated(ensemble: Ensemble, support: Support, found: Predictions | None) -> Ensemble:
    """The flows with a calibration for the support images, by their predictions if there are."""
    if found is None:
        if ensemble.trained.frozen is None:
            return ensemble
        calibration = unmeasured(ensemble.members[0])
    elif ensemble.trained.frozen is None:
        calibration = domain_calibration(ensemble, support, found)
    else:
        calibration = support_calibration(ensemble, support, found)
    return replace(ensemble, trained=ensemble.trained.with_calibration(calibration))


def _check_reject_label(label: Any, classes: NDArray[Any]) -> None:
    if label is None:
        return
    value = np.asarray(label)
    whole = value.dtype.kind in "iu" or (value.dtype.kind == "f" and value == value.round())
    alike = value.ndim == 0 and kind_of(value) == kind_of(classes)
    if not alike or not (value.dtype.kind == "U" or whole):
        raise InputError(
            f"reject_label is {label!r}, and labels are {kind_of(classes)}: it must be of their "
            "kind, as 'unknown' or -1, or None"
        )
    if label in classes.tolist():
        raise InputError(
            f"reject_label is {label!r}, which is the label of a class: choose another"
        )
