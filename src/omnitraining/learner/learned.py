"""What one fit of a classifier made: all of it in one object that never changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnitraining.errors import InputError
from omnitraining.learner.fitting import Support, fitted, flows_of
from omnitraining.learner.given import kind_of
from omnitraining.learner.held_out import FitReport, held_out
from omnitraining.learner.predictor import Predictor
from omnitraining.learner.sources import Source
from omnitraining.learner.trained import Trained
from omnitraining.precision import float32_on_cpu


@dataclass(frozen=True)
class Options:
    """Those of a `FewShotClassifier` when it was fitted; it may have others by now.

    Args:
        source: its ``model``.
        flow: the flow that predicts.
        reject: share of known images to accept.
        reject_label: what the others are called.
    """

    source: Source
    flow: str | None
    reject: float | None
    reject_label: Any


@dataclass(frozen=True)
class Learned:
    """Classes, the predictor that tells them apart, and what both were made of.

    A learner replaces it as a whole: who reads it once sees one fit, whatever other threads do.

    Attributes:
        trained: the model.
        options: of the fit.
        support: the support set, its labels numbered.
        labels: of the support images.
        classes: the labels, sorted.
        predictor: its columns are the classes.
        threshold: familiarity from which an image is accepted; None if all are.
    """

    trained: Trained
    options: Options
    support: Support
    labels: NDArray[Any]
    classes: NDArray[Any]
    predictor: Predictor
    threshold: float | None

    def __reduce__(self) -> tuple[Any, ...]:
        return learned, (self.trained, self.options, dict(self.support.kept), self.labels)

    @cached_property
    def report(self) -> FitReport:
        """How the support images fare that are left out in turn."""
        with float32_on_cpu():
            return held_out(self.trained, self.support, self.options.flow)

    @property
    def counts(self) -> dict[Any, int]:
        """Support images by label."""
        counts = self.support.labels.bincount()
        return dict(zip(self.classes.tolist(), counts.tolist(), strict=True))

    def decide(
        self, probabilities: NDArray[np.float64], familiarity: NDArray[np.float64]
    ) -> NDArray[Any]:
        """Labels [B] of probabilities [B, N] and familiarity [B]."""
        labels: NDArray[Any] = self.classes[probabilities.argmax(1)]
        if self.threshold is None:
            return labels
        accepted = familiarity >= self.threshold
        if self.options.reject_label is not None:
            return np.where(accepted, labels, np.asarray(self.options.reject_label))
        chosen = labels.astype(object)
        chosen[~accepted] = None
        return chosen


@float32_on_cpu()
def learned(
    trained: Trained, options: Options, kept: Mapping[str, Tensor], labels: NDArray[Any]
) -> Learned:
    """Fit a predictor on what is kept of a support set.

    Raises:
        InputError: there are fewer than two classes, options are wrong, or the model cannot answer
            so many classes.
    """
    reject = options.reject
    if reject is not None and not (isinstance(reject, Real) and 0 < reject < 1):
        raise InputError(f"reject is {reject!r}: it must be above 0 and below 1, as 0.95")
    classes, indices = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        images, only = f"the images ({len(labels)})", repr(classes.tolist()[0])
        raise InputError(f"{images} are all of one class, {only}: give two classes or more")
    _check_reject_label(options.reject_label, classes)
    support = Support(kept, torch.from_numpy(indices.astype(np.int64)), len(classes))
    head, words, _ = flows_of(trained, options.flow)
    threshold = None
    if reject is not None:
        if head not in trained.calibration.familiarity:
            raise InputError(
                f"reject needs features that stay as they are, which {words} has not: leave it "
                "out or choose another flow"
            )
        threshold = trained.calibration.threshold(head, support.shots, reject)
    predictor = fitted(trained, support, options.flow)
    return Learned(trained, options, support, labels, classes, predictor, threshold)


def _check_reject_label(label: Any, classes: NDArray[Any]) -> None:
    if label is None:
        return
    found = np.asarray(label)
    whole = found.dtype.kind in "iu" or (found.dtype.kind == "f" and found == found.round())
    alike = found.ndim == 0 and kind_of(found) == kind_of(classes)
    if not alike or not (found.dtype.kind == "U" or whole):
        raise InputError(
            f"reject_label is {label!r}, and labels are {kind_of(classes)}: it must be of their "
            "kind, as 'unknown' or -1, or None"
        )
    if label in classes.tolist():
        raise InputError(
            f"reject_label is {label!r}, which is the label of a class: choose another"
        )
